"""Motion modules give what an independent library gives with the same random weights.

The reference is diffusers, a test requirement only.  It normalises inside the motion modules over all frames, where
AnimateDiff's own code does so frame by frame; with its norms reshaped it is a reference for that too.

Axes: b clips or conditionings, c channels, f frames, h height, w width; n tokens, d channels of a text.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import MotionAdapter
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers
from einops import repeat
from torch import Tensor

import diffusers_reference as reference
from diffusers_names import as_diffusers
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.host.frame_cache import no_cache
from magicvideo.adaptor_unet.host.hosted import hosted_motion_module
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect, norms_over_frames
from magicvideo.adaptor_unet.motion_lora import load_motion_lora, with_motion_lora
from magicvideo.adaptor_unet.motion_module import MotionModule
from magicvideo.tools.make_random_checkpoint import random_motion_lora, random_motion_module
from magicvideo.tools.motion_module_files import SIZES
from measures import relative
from motion_modules import from_tensors, narrow_model, plain

# What a module computes is the pack's own; test_motion_module_effect.py has it on every ComfyUI.
pytestmark = pytest.mark.on_newest

CLOSE = 1e-5
TIMESTEP = 471.0
FRAMES = 6


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    model = narrow_model()
    reference.random_weights(model.model.diffusion_model, 7)
    return model


@pytest.fixture(autouse=True)
def without_gradients() -> None:
    with torch.no_grad():
        yield


def inputs(model: ModelPatcher, runs: int = 2, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Latents ``(b f) c h w`` and texts ``b n d``."""
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(runs, 7, model.model.model_config.unet_config["context_dim"], generator=generator)
    return torch.randn(runs * frames, 4, 8, 8, generator=generator), text


def ours(
    model: ModelPatcher, module: MotionModule | None, x: Tensor, text: Tensor, over_frames: bool = False
) -> Tensor:
    """One call of the host's UNet with the effect, ``(b f) c h w``.  ``over_frames``: the module's own norms too."""
    runs, frames, unet = len(text), len(x) // len(text), model.model.diffusion_model
    with ExitStack() as stack:
        if module is not None:
            patcher = hosted_motion_module(module)
            effect = MotionModuleEffect.of(model, motion_module=patcher)
            for part in MotionModuleEffect.parts([(effect, FrameLayout.whole(runs, frames))], no_cache):
                stack.enter_context(part.hooked(unet))
            if over_frames:
                names = tuple(f"{name}.norm" for name in patcher.model.places())
                stack.enter_context(norms_over_frames(names, frames).hooked(patcher.model))
        context = repeat(text, "b n d -> (b f) n d", f=frames)
        return unet(x, torch.full((len(x),), TIMESTEP), context=context, transformer_options={})


def theirs(model: ModelPatcher, motion: MotionAdapter, x: Tensor, text: Tensor, per_frame: bool = True) -> Tensor:
    unet = reference.motion_unet(reference.image_unet(model), motion)
    if per_frame:
        reference.motion_norms_per_frame(unet, len(x) // len(text))
    return reference.run(unet, x, TIMESTEP, text)


def read(motion: MotionAdapter) -> MotionModule:
    """The library's weights through our reader of its layout."""
    return from_tensors(motion.state_dict())


@pytest.mark.parametrize("mid", [True, False], ids=["v2", "v3"])
@pytest.mark.parametrize(("runs", "frames"), [(1, 6), (2, 6), (3, 4)])
def test_v2_and_v3_are_the_reference(model: ModelPatcher, mid: bool, runs: int, frames: int) -> None:
    motion, (x, text) = reference.adapter(mid), inputs(model, runs, frames)
    module = read(motion)
    assert module.config.kind == ("AnimateDiff v2" if mid else "AnimateDiff v3")
    out = ours(model, module, x, text)
    assert relative(out, theirs(model, motion, x, text)) <= CLOSE
    assert relative(out, ours(model, None, x, text)) > 0.05, "the module should show"
    assert relative(out, theirs(model, motion, x, text, per_frame=False)) > 100 * CLOSE, "norms should show"


@pytest.mark.parametrize("mid", [True, False], ids=["v2", "v3"])
def test_with_its_norms_over_frames_it_is_the_library_as_it_stands(model: ModelPatcher, mid: bool) -> None:
    motion, (x, text) = reference.adapter(mid), inputs(model)
    out = ours(model, read(motion), x, text, over_frames=True)
    assert relative(out, theirs(model, motion, x, text, per_frame=False)) <= CLOSE


def test_v1_is_the_reference_with_45_norms_over_frames(model: ModelPatcher) -> None:
    motion, (x, text) = reference.adapter(mid=False, positions=24), inputs(model)
    module = read(motion)
    assert module.config.kind == "AnimateDiff v1"
    unet = reference.motion_unet(reference.image_unet(model), motion)
    reference.motion_norms_per_frame(unet, FRAMES)
    assert reference.image_norms_over_frames(unet, FRAMES) == 45
    out = ours(model, module, x, text)
    assert relative(out, reference.run(unet, x, TIMESTEP, text)) <= CLOSE
    assert relative(out, theirs(model, motion, x, text)) > 100 * CLOSE, "the image model's norms should show"


def test_animatelcm_without_positions_in_its_file_is_the_same_with_them(model: ModelPatcher) -> None:
    motion, (x, text) = reference.adapter(mid=True, positions=64), inputs(model, 1, 40)
    tensors = {name: x for name, x in motion.state_dict().items() if not name.endswith("pos_embed.pe")}
    module = from_tensors(tensors)
    assert (module.config.kind, module.config.positions) == ("AnimateLCM", 64)
    assert relative(ours(model, module, x, text), theirs(model, motion, x, text)) <= CLOSE


@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_a_motion_lora_is_the_reference_with_its_weights_merged_by_hand(
    model: ModelPatcher, tmp_path: Path, strength: float
) -> None:
    motion, (x, text) = reference.adapter(mid=True), inputs(model)
    changes = random_motion_lora(2, "v2", SIZES["narrow"])
    torch.save(changes, tmp_path / "lora.ckpt")
    module = with_motion_lora(read(motion), load_motion_lora(tmp_path / "lora.ckpt", plain), strength)
    plainly = theirs(model, motion, x, text)
    merged = motion.state_dict()
    for name in changes:
        if name.endswith("_lora.up.weight"):
            change = changes[name] @ changes[name.replace(".up.", ".down.")]
            own = next(iter(as_diffusers({name: change})))
            own = own.replace("processor.to_out_lora.up", "to_out.0").replace("processor.", "").replace("_lora.up", "")
            merged[own] = merged[own] + strength * change
    motion.load_state_dict(merged)
    expected = theirs(model, motion, x, text)
    assert relative(ours(model, module, x, text), expected) <= CLOSE
    assert relative(plainly, expected) > 0.01, "the MotionLoRA should show"


def test_a_window_is_the_same_frames_alone(model: ModelPatcher) -> None:
    motion, (x, text) = reference.adapter(mid=True), inputs(model, 1, 5)
    module = read(motion)
    effect = MotionModuleEffect.of(model, motion_module=hosted_motion_module(module))
    window = FrameLayout(1, (11, 12, 13, 14, 15), (0,) * 5)
    unet = model.model.diffusion_model
    (part,) = MotionModuleEffect.parts([(effect, window)], no_cache)
    with part.hooked(unet):
        context = repeat(text, "b n d -> (b f) n d", f=5)
        out = unet(x, torch.full((5,), TIMESTEP), context=context, transformer_options={})
    assert torch.equal(out, ours(model, module, x, text))


@pytest.mark.parametrize("variant", ["v1", "v2", "v3", "lcm"])
def test_the_librarys_converter_reads_the_same_out_of_a_file_as_we_do(variant: str) -> None:
    tensors = random_motion_module(4, variant, SIZES["narrow"])
    converted = convert_animatediff_checkpoint_to_diffusers(dict(tensors))
    ours_found = from_tensors(tensors).state_dict()
    assert len(converted) == len(ours_found)
    back = from_tensors(converted).state_dict()
    assert back.keys() == ours_found.keys() and all(torch.equal(back[name], x) for name, x in ours_found.items())
