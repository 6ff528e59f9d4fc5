"""An adaptor file of the narrow network becomes one of the wide network, which the pack loads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.checkpoint import load, save
from magicvideo.adaptor_unet.sites import Site
from magicvideo.demo.model.padding import pad_adaptor_file


def narrow_config(heads: int = 4) -> AdaptorConfig:
    sites = (
        Site("input_blocks.0.0", "convolution", 160),
        Site("input_blocks.1.1.transformer_blocks.0", "transformer", 160),
    )
    return AdaptorConfig(sites, frames=3, heads=heads, rank=5, time_channels=160, embedding_channels=640)


def saved(path: Path, config: AdaptorConfig) -> VideoAdaptor:
    torch.manual_seed(0)
    adaptor = VideoAdaptor(config)
    with torch.no_grad():
        for parameter in adaptor.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    save(adaptor, path, {"trained.on": "sprites"})
    return adaptor


def test_the_pack_loads_the_padded_file_with_all_that_it_said(tmp_path: Path) -> None:
    adaptor = saved(tmp_path / "narrow.safetensors", narrow_config())
    pad_adaptor_file(tmp_path / "narrow.safetensors", tmp_path / "new" / "wide.safetensors")
    wide = load(tmp_path / "new" / "wide.safetensors")
    assert wide.metadata["trained.on"] == "sprites"
    config = wide.config
    assert {site.channels for site in config.sites} == {320} and config.heads == 8 and config.rank == 5
    assert (config.time_channels, config.embedding_channels, config.frames) == (320, 1280, 3)
    name = "input_blocks.0.0"
    assert torch.equal(wide.frame[name].scale[:, :160], adaptor.frame[name].scale)
    assert (wide.frame[name].scale[:, 160:] == 1).all() and (wide.frame[name].shift[:, 160:] == 0).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["wide.safetensors"]


def test_heads_that_cannot_be_padded_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "narrow.safetensors", narrow_config(heads=8))
    with pytest.raises(ValueError, match="heads of 40 channels"):
        pad_adaptor_file(tmp_path / "narrow.safetensors", tmp_path / "wide.safetensors")
    assert not (tmp_path / "wide.safetensors").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no adaptor file"):
        pad_adaptor_file(tmp_path / "other.safetensors", tmp_path / "wide.safetensors")
