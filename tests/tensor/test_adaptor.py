"""Settings that check themselves, and all modules of an adaptor under the names of the UNet."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import nn

from magicvideo.adaptor_unet.adaptor import LATER, PARTS, AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.frame_adaptor import apply_change
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.sites import Site, find_sites

TRANSFORMER = Site("middle_block.1.transformer_blocks.0", "transformer", 8)

BAD_FIELDS = [
    ("frames", 0),
    ("frames", 1025),
    ("frames", 16.0),
    ("frames", True),
    ("frames", "16"),
    ("frames", None),
    ("frames", 2**70),
    ("heads", 0),
    ("heads", 257),
    ("heads", 3),  # 8 channels cannot be shared by 3
    ("rank", -1),
    ("rank", 4097),
    ("rank", 2.5),
    ("shared_noise", -0.1),
    ("shared_noise", 1.1),
    ("shared_noise", True),
    ("shared_noise", "0.1"),
    ("shared_noise", None),
    ("shared_noise", float("nan")),
    ("shared_noise", float("inf")),
    ("frame_noise_levels", "two"),
    ("frame_noise_levels", None),
    ("frame_noise_levels", ["one_a_clip"]),
    ("context_noise", -0.1),
    ("context_noise", 2.0),
    ("context_noise", float("nan")),
    ("context_noise", "0.1"),
    ("rotary", 1),
    ("rotary", "yes"),
    ("rotary", None),
    ("parts", []),
    ("parts", ["frame", "other"]),
    ("parts", [["frame"]]),
    ("parts", [{}]),
    ("parts", [None]),
    ("time_channels", 0),
    ("time_channels", 5),
    ("time_channels", 65_538),
    ("embedding_channels", 0),
    ("embedding_channels", 65_537),
    ("base", None),
    ("fps_guidance", 1),
    ("base", 15),
    ("sites", []),
    ("sites", ["input_blocks.0.0"]),
    ("sites", [{"name": "input_blocks.0.0", "kind": "convolution"}]),
    ("sites", [{"name": "input_blocks.0.0", "kind": "convolution", "channels": 8, "more": 1}]),
    ("sites", [{"name": "out.2", "kind": "convolution", "channels": 8}]),
    ("sites", [{"name": "input_blocks.0.0", "kind": [], "channels": 8}]),
    ("sites", [{"name": "input_blocks.0.0", "kind": "convolution", "channels": 8}] * 2),
    ("sites", [{"name": f"input_blocks.{i}.0.op", "kind": "convolution", "channels": 8} for i in range(1, 1026)]),
]


def sized(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_settings_survive_json(small_config: AdaptorConfig) -> None:
    changed = {"rank": 2, "rotary": True, "parts": ("fps", "temporal"), "shared_noise": 0.3, "base": "another"}
    changed |= {"frame_noise_levels": "clean_context", "context_noise": 0.2}
    other = dataclasses.replace(small_config, **changed)
    for config in (small_config, other):
        assert AdaptorConfig.from_json(config.to_json()) == config


def test_settings_of_sd15_survive_json(sd15_unet: nn.Module) -> None:
    config = AdaptorConfig(find_sites(sd15_unet))
    assert AdaptorConfig.from_json(config.to_json()) == config


def test_settings_cannot_be_changed(small_config: AdaptorConfig) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_config.frames = 8


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_each_bad_field_is_refused(small_config: AdaptorConfig, field: str, value: object) -> None:
    settings = json.loads(small_config.to_json()) | {field: value}
    with pytest.raises(ValueError):
        AdaptorConfig.from_json(json.dumps(settings))


@pytest.mark.parametrize("text", ["", "null", "[]", '"x"', "3", "{", "{}", "NaN", '{"frames": 4}', "\ud800"])
def test_anything_but_settings_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        AdaptorConfig.from_json(text)


@pytest.mark.parametrize("field", sorted({field.name for field in dataclasses.fields(AdaptorConfig)} - LATER))
def test_no_field_may_be_missing_in_json(small_config: AdaptorConfig, field: str) -> None:
    settings = json.loads(small_config.to_json())
    del settings[field]
    with pytest.raises(ValueError, match="settings must be exactly"):
        AdaptorConfig.from_json(json.dumps(settings))


def test_a_file_of_before_shares_no_noise_and_had_one_noise_level_a_clip(small_config: AdaptorConfig) -> None:
    later = {"shared_noise": 0.3, "frame_noise_levels": "one_a_frame", "context_noise": 0.3, "head_channels": 2}
    later |= {"fps_guidance": True}
    assert set(later) == LATER
    settings = json.loads(dataclasses.replace(small_config, **later).to_json())
    for name in LATER:
        del settings[name]
    found = AdaptorConfig.from_json(json.dumps(settings))
    assert found == small_config
    assert (found.shared_noise, found.frame_noise_levels) == (0.0, "one_a_clip")


def test_no_field_may_be_added_in_json(small_config: AdaptorConfig) -> None:
    with pytest.raises(ValueError, match="settings must be exactly"):
        AdaptorConfig.from_json(json.dumps(json.loads(small_config.to_json()) | {"__class__": "os.system"}))


@pytest.mark.parametrize("field", ["sites", "parts"])
@pytest.mark.parametrize("value", [None, {}, "frame", 3])
def test_lists_must_be_lists(small_config: AdaptorConfig, field: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="must be lists"):
        AdaptorConfig.from_json(json.dumps(json.loads(small_config.to_json()) | {field: value}))


def test_rotary_needs_pairs_of_channels_in_each_head() -> None:
    assert AdaptorConfig((TRANSFORMER,), heads=8).heads == 8
    with pytest.raises(ValueError, match="8 channels cannot be shared by 8 heads"):
        AdaptorConfig((TRANSFORMER,), heads=8, rotary=True)


def test_heads_follow_from_their_width_where_it_is_given() -> None:
    wide = Site("output_blocks.0.1.transformer_blocks.1", "transformer", 16)
    config = AdaptorConfig((TRANSFORMER, wide), heads=8, head_channels=4)
    assert [VideoAdaptor(config).temporal[site.name].heads for site in config.transformers] == [2, 4]
    with pytest.raises(ValueError, match="8 channels cannot be shared by 0 heads"):
        AdaptorConfig((TRANSFORMER,), head_channels=16)


def test_modules_are_named_by_their_site(small_config: AdaptorConfig) -> None:
    keys = set(VideoAdaptor(small_config).state_dict())
    assert keys == {
        "frame.input_blocks.0.0.scale",
        "frame.input_blocks.0.0.shift",
        "frame.input_blocks.1.0.in_layers.2.scale",
        "frame.input_blocks.1.0.in_layers.2.shift",
        "spatial.middle_block.1.transformer_blocks.0.scale",
        "spatial.middle_block.1.transformer_blocks.0.shift",
        "temporal.middle_block.1.transformer_blocks.0.to_q.up.weight",
        "temporal.middle_block.1.transformer_blocks.0.to_k.up.weight",
        "temporal.middle_block.1.transformer_blocks.0.to_v.up.weight",
        "temporal.middle_block.1.transformer_blocks.0.to_out.up.weight",
        "temporal.middle_block.1.transformer_blocks.0.to_out.up.bias",
        "fps.inner.weight",
        "fps.inner.bias",
        "fps.outer.weight",
        "fps.outer.bias",
    }


def test_modules_are_found_by_the_name_of_their_site(small_config: AdaptorConfig) -> None:
    adaptor = VideoAdaptor(small_config)
    for site in small_config.convolutions:
        assert adaptor.frame[site.name].scale.shape == (4, site.channels)
    for site in small_config.transformers:
        assert adaptor.spatial[site.name].scale.shape == (4, site.channels)
        attention = adaptor.temporal[site.name]
        assert (attention.heads, attention.span, attention.rotary) == (2, 4, False)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_has_its_own_modules_only(small_config: AdaptorConfig, part: str) -> None:
    adaptor = VideoAdaptor(dataclasses.replace(small_config, parts=(part,)))
    assert {key.split(".")[0] for key in adaptor.state_dict()} == {part}
    assert (adaptor.fps is None) == (part != "fps")


def test_a_new_adaptor_changes_nothing(small_config: AdaptorConfig) -> None:
    adaptor, rows = VideoAdaptor(small_config), torch.arange(4)
    for site in small_config.convolutions:
        z = torch.randn(4, site.channels, 3, 3)
        scale_delta, shift = (rearrange(x, "n c -> n c 1 1") for x in adaptor.frame[site.name].change(rows))
        assert torch.equal(apply_change(z.clone(), scale_delta, shift), z)
    for site in small_config.transformers:
        z = torch.randn(4, 9, site.channels)
        assert all(change.count_nonzero() == 0 for change in adaptor.spatial[site.name].change(rows))
        assert adaptor.temporal[site.name](z, FrameLayout.whole(1, 4)).count_nonzero() == 0
    assert adaptor.fps(torch.tensor([8.0])).count_nonzero() == 0


def test_sd15_has_the_parameters_the_design_says(sd15_unet: nn.Module) -> None:
    """1.47 M in the first set, 49.6 M in full temporal attention."""
    adaptor = VideoAdaptor(AdaptorConfig(find_sites(sd15_unet)), device="meta")
    assert sized(adaptor.frame) == 2 * 16 * sum(site.channels for site in adaptor.config.convolutions)
    assert round(sized(adaptor.frame) / 1e6, 2) == 1.47
    assert round(sized(adaptor.temporal) / 1e6, 1) == 49.6
    assert sized(adaptor.spatial) == 2 * 16 * (5 * 320 + 5 * 640 + 6 * 1280)
    assert sized(adaptor.fps) == 320 * 1280 + 1280 + 1280 * 1280 + 1280


def test_a_rank_makes_the_attention_of_sd15_small(sd15_unet: nn.Module) -> None:
    adaptor = VideoAdaptor(AdaptorConfig(find_sites(sd15_unet), rank=64), device="meta")
    channels = 5 * 320 + 5 * 640 + 6 * 1280
    assert sized(adaptor.temporal) == 4 * 2 * 64 * channels + channels


def test_layers_come_from_the_given_operations(small_config: AdaptorConfig) -> None:
    class Operations:
        class Linear(nn.Linear):
            pass

    adaptor = VideoAdaptor(small_config, Operations, device="meta")
    layers = [module for module in adaptor.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 4 + 2
    assert all(type(layer) is Operations.Linear for layer in layers)
    assert all(parameter.is_meta for parameter in adaptor.parameters())
