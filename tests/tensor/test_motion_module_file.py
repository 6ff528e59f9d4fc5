"""Public motion modules are told apart by the names of their tensors; everything else is refused with a sentence."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusers_names import as_diffusers
from magicvideo.adaptor_unet.motion_module import MotionModule
from magicvideo.adaptor_unet.motion_module_file import MotionFileError, load_motion_module
from magicvideo.tools.make_random_checkpoint import random_motion_lora
from magicvideo.tools.make_random_checkpoint import random_motion_module as drawn
from magicvideo.tools.motion_module_files import SIZES, Size

NARROW = SIZES["narrow"]
# The smallest that has all parts, for what takes many files.
SMALL = Size((32, 32, 32, 32), depth=1)
Tensors = dict[str, Tensor]
drawn_once = lru_cache(drawn)


def random_motion_module(seed: int, variant: str, size: Size) -> Tensors:
    return dict(drawn_once(seed, variant, size))


def plain(path: Path) -> object:
    """As the host reads pickled files."""
    return torch.load(path, weights_only=True)


def load(path: Path) -> MotionModule:
    return load_motion_module(path, plain)


def as_training_script(tensors: Tensors) -> dict:
    """What a training script leaves: a whole UNet of a process group, with numbers beside."""
    unet = {"conv_in.weight": torch.ones(4, 4, 3, 3), "down_blocks.0.resnets.0.norm1.weight": torch.ones(4)}
    return {"epoch": 3, "global_step": 900, "state_dict": {f"module.{name}": x for name, x in (tensors | unet).items()}}


LAYOUTS: dict[str, Callable[[Tensors], dict]] = {
    "official": lambda tensors: tensors,
    "diffusers": as_diffusers,
    "training script": as_training_script,
}
VARIANTS = {
    "v1": ("AnimateDiff v1", False, 24),
    "v2": ("AnimateDiff v2", True, 32),
    "v3": ("AnimateDiff v3", False, 32),
    "lcm": ("AnimateLCM", True, 64),
}


@pytest.mark.parametrize(
    ("name", "kind"), [("AnimateLCM.safetensors", "AnimateLCM"), ("mm_v15_v2.safetensors", "AnimateDiff v2")]
)
def test_animatelcm_as_diffusers_writes_it_is_told_by_the_files_name(tmp_path: Path, name: str, kind: str) -> None:
    """With a position encoding, so that its tensors are v2's."""
    config = load(written(tmp_path / name, as_diffusers(random_motion_module(3, "v2", NARROW)))).config
    assert (config.kind, config.positions) == (kind, 32)


def written(path: Path, content: dict) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("layout", "suffix"),
    [
        ("official", ".safetensors"),
        ("official", ".ckpt"),
        ("official", ".pth"),
        ("diffusers", ".safetensors"),
        ("diffusers", ".ckpt"),
        ("training script", ".ckpt"),
    ],
)
def test_every_variant_is_recognised_in_every_layout(tmp_path: Path, variant: str, layout: str, suffix: str) -> None:
    tensors = random_motion_module(3, variant, NARROW)
    module = load(written(tmp_path / f"motion{suffix}", LAYOUTS[layout](tensors)))
    kind, mid, positions = VARIANTS[variant]
    assert (module.config.kind, module.config.mid, module.config.positions) == (kind, mid, positions)
    assert (module.config.widths, module.config.depth) == (NARROW.widths, 2)
    assert module.config.norms_over_frames == (variant == "v1")
    expected = {
        name.replace(".temporal_transformer", ""): x for name, x in tensors.items() if "pos_encoder" not in name
    }
    found = module.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], x) for name, x in expected.items())
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_files_dtype_is_kept_and_a_settings_text_is_left_out(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: x.to(dtype) for name, x in random_motion_module(0, "v3", SMALL).items()}
    module = load(written(tmp_path / "a.ckpt", tensors | {"animatediff_config": "text"}))
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}


def test_a_loaded_module_does_not_need_its_file_any_more(tmp_path: Path) -> None:
    tensors = random_motion_module(0, "v3", SMALL)
    path = written(tmp_path / "a.safetensors", tensors)
    module = load(path)
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    name = "up_blocks.3.motion_modules.1.proj_out.weight"
    own = name.replace("proj_out", "temporal_transformer.proj_out")
    assert torch.equal(module.state_dict()[name], tensors[own])


# Files of another kind

PLACE = "down_blocks.0.motion_modules.0.temporal_transformer"
MOTION = f"{PLACE}.norm.weight"
ENCODING = f"{PLACE}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
ADAPTER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"
OTHER = {
    "SDXL": (lambda: random_motion_module(0, "v3", Size((32, 64, 128))), "is a motion module for SDXL"),
    "HotshotXL": (
        lambda: {"down_blocks.0.temporal_attentions.0.norm.weight": torch.ones(32)},
        "is HotshotXL, a motion module for SDXL",
    ),
    "AnimateLCM-I2V": (lambda: {MOTION: torch.ones(32), "img_encoder.conv.weight": torch.ones(1)}, "is AnimateLCM-I2V"),
    "PIA": (lambda: {MOTION: torch.ones(32), "conv_in.weight": torch.ones(320, 9, 3, 3)}, "is PIA"),
    "FancyVideo": (lambda: {MOTION: torch.ones(32), "fps_embedding.linear.weight": torch.ones(1)}, "is FancyVideo"),
    "SparseCtrl": (
        lambda: {MOTION: torch.ones(32), "controlnet_cond_embedding.weight": torch.ones(1)},
        "is SparseCtrl, a ControlNet",
    ),
    "Live2Diff": (
        lambda: {f"module.{MOTION}": torch.ones(32), "module.flow_conv_in.0.weight": torch.ones(1)},
        "is Live2Diff",
    ),
    "MotionLoRA": (lambda: random_motion_lora(0, "v2", SMALL), "is a MotionLoRA. Use the node Load Motion LoRA"),
    "v3 domain adapter": (
        lambda: {ADAPTER: torch.ones(4, 4)},
        "is an image LoRA. Put it into models/loras and use the node Load LoRA",
    ),
    "checkpoint": (lambda: {"model.diffusion_model.out.0.weight": torch.ones(4)}, "seems to be a full checkpoint"),
    "adaptor": (lambda: {"frame.input_blocks.0.0.scale": torch.ones(4)}, "Use the node Load MagicVideo Adaptor"),
    "image LoRA": (lambda: {"lora_unet_x.lora_down.weight": torch.ones(4, 4)}, "use the node Load LoRA"),
    "nothing": (dict, "unknown kind with 0 tensors"),
}


def refusal(path: Path) -> str:
    with pytest.raises(MotionFileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(path.name) and len(message) < 600
    return message


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("case", OTHER)
def test_another_kind_is_refused_by_name(tmp_path: Path, case: str, suffix: str) -> None:
    make, told = OTHER[case]
    message = refusal(written(tmp_path / f"a{suffix}", make()))
    assert told in message and "expected an AnimateDiff motion module for SD1.5" in message


# Damaged and hostile files


def changed(**change: Tensor | None) -> Tensors:
    tensors = random_motion_module(0, "v3", SMALL)
    for name, value in change.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    return tensors


PROJ = "up_blocks.1.motion_modules.1.temporal_transformer.proj_in.weight"
DAMAGED = {
    "a tensor is missing": ({PROJ: None}, "lacks 1 tensors"),
    "a tensor too many": ({PROJ.replace("proj_in", "proj_up"): torch.ones(2)}, "has 1 unknown ones"),
    "a tensor of nothing": ({"__class__.__init__.__globals__": torch.ones(2)}, "belong to no motion module"),
    "a wrong shape": ({PROJ: torch.ones(32, 31)}, "has shape [32, 31]"),
    "a wrong width": ({MOTION: torch.ones(33)}, "fits no UNet (widths must be multiples of 32"),
    "a width of nothing": ({MOTION: torch.ones(())}, "fits no UNet"),
    "positions of two lengths": (
        {ENCODING: torch.ones(1, 9, 32)},
        "position encodings of different lengths",
    ),
    "a level far away": ({MOTION.replace("blocks.0", "blocks.9999", 1): torch.ones(32)}, "fits no UNet"),
    "NaN": ({PROJ: torch.full((32, 32), float("nan"))}, "that are not finite numbers"),
    "infinity": ({PROJ: torch.full((32, 32), float("inf"))}, "that are not finite numbers"),
    "float64": ({PROJ: torch.ones(32, 32, dtype=torch.float64)}, "that are not finite numbers"),
    "whole numbers": ({PROJ: torch.ones(32, 32, dtype=torch.int32)}, "that are not finite numbers"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_module_is_refused_with_the_reason(tmp_path: Path, case: str, suffix: str) -> None:
    change, told = DAMAGED[case]
    assert told in refusal(written(tmp_path / f"a{suffix}", changed(**change)))


def test_a_pickle_that_would_run_something_is_refused_and_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "run"),)

    path = tmp_path / "a.ckpt"
    torch.save({MOTION: Payload()}, path)
    assert "nothing else is read" in refusal(path)
    torch.save({MOTION: Payload()}, path, _use_new_zipfile_serialization=False)
    assert "before PyTorch 1.6" in refusal(path)
    path.write_bytes(pickle.dumps(Payload()))
    assert "before PyTorch 1.6" in refusal(path)
    assert not (tmp_path / "run").exists()


def test_what_is_no_plain_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for value in (3, "text", [torch.ones(2)], {"a": torch.ones(2)}, torch.ones(2, 2).to_sparse()):
        torch.save(random_motion_module(0, "v3", SMALL) | {MOTION: value}, path)
        assert "is no plain tensor" in refusal(path)
    torch.save([torch.ones(2)], path)
    assert "holds a list and no tensors by name" in refusal(path)


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(random_motion_module(0, "v3", SMALL) | {PROJ: torch.ones(1).expand(32, 32)}, path)
    assert "that are not finite numbers" in refusal(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**6)
    assert "is a compressed archive" in refusal(path)


def test_a_renamed_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(random_motion_module(0, "v3", SMALL), path)
    assert "a pickled PyTorch file" in refusal(path.rename(tmp_path / "a.safetensors"))


BYTES = {
    "web page": (b"<!DOCTYPE html><html></html>", "is a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "empty": (b"", "is an empty file"),
    "header of 2^60": (struct.pack("<Q", 2**60) + b'{"a":1}', "is cut short or damaged"),
    "zip of nothing": (b"PK\x05\x06" + b"\0" * 18, "no safetensors file"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("case", BYTES)
def test_a_file_that_holds_no_tensors_is_refused_with_its_kind(tmp_path: Path, case: str, suffix: str) -> None:
    content, told = BYTES[case]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert told in refusal(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = written(tmp_path / f"a{suffix}", random_motion_module(0, "v3", SMALL))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    refusal(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_that_the_system_does_not_give_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def failing(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path / f"a{suffix}", random_motion_module(0, "v3", SMALL))
    monkeypatch.setattr(Path, "open", failing)
    assert "Permission denied" in refusal(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match=r"gone\.ckpt is not there\. Refresh .* choose another motion module"):
        load(tmp_path / "gone.ckpt")
