"""A MotionLoRA is added to a motion module's attentions; what does not fit is refused."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from magicvideo.adaptor_unet.motion_lora import load_motion_lora, with_motion_lora
from magicvideo.adaptor_unet.motion_module import MotionModule
from magicvideo.adaptor_unet.motion_module_file import MotionFileError, load_motion_module
from magicvideo.tools.make_random_checkpoint import random_motion_lora, random_motion_module
from magicvideo.tools.motion_module_files import SIZES, Size

NARROW = SIZES["narrow"]
WEIGHT = "up_blocks.2.motion_modules.1.transformer_blocks.0.attention_blocks.1"
Tensors = dict[str, Tensor]


def plain(path: Path) -> object:
    return torch.load(path, weights_only=True)


def module_file(folder: Path, variant: str = "v2", size: Size = NARROW) -> MotionModule:
    path = folder / f"{variant}.safetensors"
    save_file(random_motion_module(3, variant, size), path)
    return load_motion_module(path, plain)


@pytest.fixture
def module(tmp_path: Path) -> MotionModule:
    return module_file(tmp_path)


@pytest.fixture
def tensors() -> Tensors:
    return random_motion_lora(1, "v2", NARROW)


def lora_file(folder: Path, tensors: Tensors, name: str = "v2_lora_PanLeft.ckpt") -> Path:
    path = folder / name
    if path.suffix == ".ckpt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


def official(name: str, part: str, end: str) -> str:
    inner = name.replace(".transformer_blocks", ".temporal_transformer.transformer_blocks")
    return f"{inner}.processor.to_{part}_lora.{end}.weight"


def refusal(path: Path) -> str:
    with pytest.raises(MotionFileError) as caught:
        load_motion_lora(path, plain)
    assert str(caught.value).startswith(path.name)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_it_is_the_change_worked_out_by_hand(
    tmp_path: Path, module: MotionModule, tensors: Tensors, strength: float, suffix: str
) -> None:
    lora = load_motion_lora(lora_file(tmp_path, tensors, f"a{suffix}"), plain)
    before = {name: x.clone() for name, x in module.state_dict().items()}
    after = with_motion_lora(module, lora, strength).state_dict()
    for part, own in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0")):
        up, down = (tensors[official(WEIGHT, part, end)] for end in ("up", "down"))
        name = f"{WEIGHT}.{own}.weight"
        torch.testing.assert_close(after[name], before[name] + strength * up @ down)
        assert (after[name] - before[name]).abs().max() > 0.01
    changed = {name for name, x in after.items() if not torch.equal(x, before[name])}
    assert len(changed) == 21 * 8 and all(".attention_blocks." in name for name in changed)
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items()), "what came in"


def test_two_in_a_row_add_up_and_one_at_0_is_none(tmp_path: Path, module: MotionModule, tensors: Tensors) -> None:
    lora = load_motion_lora(lora_file(tmp_path, tensors), plain)
    name = f"{WEIGHT}.to_q.weight"
    twice = with_motion_lora(with_motion_lora(module, lora, 0.5), lora, 0.5).state_dict()[name]
    torch.testing.assert_close(twice, with_motion_lora(module, lora, 1.0).state_dict()[name])
    none = with_motion_lora(module, lora, 0.0).state_dict()
    assert all(torch.equal(none[name], x) for name, x in module.state_dict().items())


@pytest.mark.parametrize(
    ("pattern", "theirs"),
    [
        (r"_lora\.(down|up)\.weight", r".lora_\1.weight"),
        (r"\.processor\.to_out_lora\.", ".processor.to_out.0_lora."),
        (r"\.processor\.to_(q|k|v)_lora\.", r".to_\1.lora."),
        (r"^", "unet."),
        (r"\.temporal_transformer", ""),
    ],
)
def test_other_writings_of_the_names_are_read(
    tmp_path: Path, module: MotionModule, tensors: Tensors, pattern: str, theirs: str
) -> None:
    expected = with_motion_lora(module, load_motion_lora(lora_file(tmp_path, tensors), plain), 1.0).state_dict()
    renamed = {re.sub(pattern, theirs, name): x for name, x in tensors.items()}
    assert renamed.keys() != tensors.keys()
    found = with_motion_lora(module, load_motion_lora(lora_file(tmp_path, renamed, "b.ckpt"), plain), 1.0).state_dict()
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_an_alpha_is_the_change_divided_by_the_rank(tmp_path: Path, module: MotionModule, tensors: Tensors) -> None:
    alphas = {re.sub(r"up\.weight$", "alpha", name): torch.tensor(16.0) for name in tensors if "_lora.up" in name}
    plainly = with_motion_lora(module, load_motion_lora(lora_file(tmp_path, tensors), plain), 0.25)
    scaled = load_motion_lora(lora_file(tmp_path, tensors | alphas, "alpha.ckpt"), plain)
    name = f"{WEIGHT}.to_v.weight"
    torch.testing.assert_close(with_motion_lora(module, scaled, 1.0).state_dict()[name], plainly.state_dict()[name])


def test_the_modules_dtype_is_kept(tmp_path: Path, module: MotionModule, tensors: Tensors) -> None:
    lora = load_motion_lora(lora_file(tmp_path, tensors), plain)
    half = with_motion_lora(module.half(), lora, 1.0)
    assert {x.dtype for x in half.state_dict().values()} == {torch.float16}


def test_an_image_lora_and_a_module_are_refused_by_name(tmp_path: Path) -> None:
    inner = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora"
    adapter = {f"{inner}.{end}.weight": torch.ones(4, 4) for end in ("down", "up")}
    message = refusal(lora_file(tmp_path, adapter, "v3_sd15_adapter.ckpt"))
    assert "is an image LoRA. Put it into models/loras and use the node Load LoRA" in message
    kohya = {
        f"lora_unet_down_blocks_0_motion_modules_0_to_q.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")
    }
    message = refusal(lora_file(tmp_path, kohya, "kohya.ckpt"))
    assert "is a LoRA on a motion module in names that are not AnimateDiff's or diffusers'" in message
    message = refusal(lora_file(tmp_path, random_motion_module(0, "v2", NARROW), "mm.ckpt"))
    assert "seems to be a motion module. Use the node Load Motion Module" in message
    assert "a web page" in refusal(web_page(tmp_path))


def web_page(folder: Path) -> Path:
    path = folder / "a.safetensors"
    path.write_bytes(b"<html>")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({official(WEIGHT, "q", "up"): None}, "no pair of matrices"),
        ({official(WEIGHT, "q", "up"): torch.ones(64, 7)}, "no pair of matrices"),
        ({official(WEIGHT, "q", "up"): torch.ones(64)}, "no pair of matrices"),
        ({official(WEIGHT, "q", "up"): torch.full((64, 64), float("nan"))}, "not finite numbers"),
        ({official(WEIGHT, "x", "up"): torch.ones(2, 2)}, "no part of a motion module's attention"),
        (
            {official(WEIGHT, "q", "up").replace("to_q", "ff"): torch.ones(2, 2)},
            "no part of a motion module's attention",
        ),
    ],
)
def test_a_damaged_one_is_refused_with_the_reason(tmp_path: Path, tensors: Tensors, change: dict, told: str) -> None:
    wrong = {name: x for name, x in (tensors | change).items() if x is not None}
    assert told in refusal(lora_file(tmp_path, wrong))


def test_one_that_does_not_fit_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    lora = load_motion_lora(lora_file(tmp_path, tensors), plain)
    with pytest.raises(MotionFileError, match=r"PanLeft.*AnimateDiff v3 and has no mid_block.*load mm_sd_v15_v2"):
        with_motion_lora(module_file(tmp_path, "v3"), lora, 1.0)
    with pytest.raises(MotionFileError, match=r"changes a weight of \[32, 32\], where .* has \[64, 64\]"):
        with_motion_lora(module_file(tmp_path, "v2", Size((64, 64, 128, 128))), lora, 1.0)
