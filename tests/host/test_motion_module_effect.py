"""A public motion module as an effect: what it leaves alone, what it is asked for, and what it refuses beforehand."""

from collections.abc import Iterator
from functools import partial

import comfy.model_management
import comfy.sample
import comfy.supported_models
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, build_model, conditioning, noise_for
from stock_windows import NO_ANCHOR, with_windows
from ways import cross_frame, features, latents, moved, planned_bytes

from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.binding import BINDING_KEY, with_causal_windows, with_effect
from magicvideo.adaptor_unet.host.memory import planned_shape
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
from magicvideo.tools.motion_module_files import Size
from measures import relative
from motion_modules import motion_module, narrow_model
from small_controls import control_net, numbered_hints, record_hints

CLOSE = 1e-4
OWN = "the model's own"


def applied(model: ModelPatcher, variant: str = "v2", **settings: object) -> ModelPatcher:
    """As the node does it, with the model's own noise schedule unless told otherwise."""
    module = settings.pop("motion_module", None) or motion_module(variant)
    settings = {"noise_schedule": OWN} | settings
    return with_effect(model, MotionModuleEffect.of(model, motion_module=module, **settings))


# What stays as it was


@pytest.mark.parametrize("variant", ["v1", "v2", "lcm"])
def test_at_strength_0_it_is_the_image_model_bit_for_bit(model: ModelPatcher, sample: Sampler, variant: str) -> None:
    still = applied(model, variant, strength=0.0, noise_schedule="auto")
    assert torch.equal(sample(still, 4, steps=3), sample(model, 4, steps=3))


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_single_frame_is_the_image_model_bit_for_bit(model: ModelPatcher, sample: Sampler, variant: str) -> None:
    assert torch.equal(sample(applied(model, variant), 1), sample(model, 1))
    scheduled = applied(model, variant, noise_schedule="auto")
    plain = model.clone()
    plain.add_object_patch("model_sampling", scheduled.get_model_object("model_sampling"))
    assert torch.equal(sample(scheduled, 1), sample(plain, 1))
    stills = applied(model, variant, frames_per_clip=1)
    assert torch.equal(sample(stills, 3), sample(model, 3)), "clips of one frame"


class StoppedError(Exception):
    pass


@pytest.mark.take_turns
@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("fails", [False, True], ids=["to its end", "interrupted"])
def test_it_shows_and_leaves_the_base_clean(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, variant: str, fails: bool
) -> None:
    plain, weights = sample(model, 4), {name: x.clone() for name, x in model.model.state_dict().items()}
    moving, unet = applied(model, variant), model.model.diffusion_model
    out = sample(moving, 4)
    assert relative(out, plain) > 1e-3
    if fails:

        def fail(*_: object) -> None:
            raise StoppedError

        handle = unet.out.register_forward_pre_hook(fail)
        with pytest.raises(StoppedError):
            sample(moving, 4)
        handle.remove()
        assert torch.equal(sample(moving, 4), out)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
    assert torch.equal(sample(model, 4), plain)
    assert all(torch.equal(x, weights[name]) for name, x in model.model.state_dict().items())


def test_another_branch_stays_the_base_in_both_orders(model: ModelPatcher, sample: Sampler) -> None:
    moving = applied(model, "v2", noise_schedule="auto")
    first = sample(model, 4), sample(moving, 4)
    second = sample(moving, 4), sample(model, 4)
    assert torch.equal(first[0], second[1]) and torch.equal(first[1], second[0])
    assert torch.equal(first[0], sample(build_model(), 4))


# What it does


def test_cond_and_uncond_together_or_apart_and_cfg_1_see_the_same_frames(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = applied(model)
    together = sample(moving, 4)
    assert relative(sample(moving, 4, cfg=1.0), sample(model, 4, cfg=1.0)) > 1e-3
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    assert relative(sample(moving, 4), together) <= CLOSE


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_clips_of_a_batch_are_what_they_are_alone(model: ModelPatcher, sample: Sampler, variant: str) -> None:
    clips = noise_for(8)
    both = sample(applied(model, variant, frames_per_clip=4), 8, noise=clips)
    apart = torch.cat([sample(applied(model, variant), 4, noise=clip) for clip in clips.split(4)])
    assert relative(both, apart) <= CLOSE
    assert relative(sample(applied(model, variant), 8, noise=clips), apart) > 10 * CLOSE


def test_group_norm_and_key_scale_and_strength_show(model: ModelPatcher, sample: Sampler) -> None:
    module = motion_module("v3")
    plain = sample(applied(model, motion_module=module), 4)
    for settings in ({"group_norm": "over frames"}, {"key_scale": 3.0}, {"strength": 0.5}):
        assert relative(sample(applied(model, motion_module=module, **settings), 4), plain) > 1e-3, settings
    assert torch.equal(sample(applied(model, motion_module=module, group_norm="per frame"), 4), plain)
    v1 = motion_module("v1")
    over = applied(model, motion_module=v1, group_norm="over frames")
    assert torch.equal(sample(over, 4), sample(applied(model, motion_module=v1), 4))


def test_it_acts_in_its_part_of_sampling(model: ModelPatcher, sample: Sampler) -> None:
    plain, whole = sample(model, 4, steps=4), sample(applied(model), 4, steps=4)
    half = sample(applied(model, end_percent=0.5), 4, steps=4)
    assert torch.equal(sample(applied(model, start_percent=1.0), 4, steps=4), plain)
    assert not torch.equal(half, plain) and not torch.equal(half, whole)


def test_two_motion_modules_on_one_model(model: ModelPatcher, sample: Sampler) -> None:
    one, other = motion_module("v1", seed=1), motion_module("v1", seed=2)
    both = applied(applied(model, motion_module=one), motion_module=other)
    assert len(both.get_additional_models_with_key(BINDING_KEY)) == 2
    assert relative(sample(both, 4), sample(applied(model, motion_module=one), 4)) > 1e-3
    again = applied(applied(model, motion_module=one, noise_schedule="auto"), "lcm", noise_schedule="auto")
    assert sample(again, 4).isfinite().all()


@pytest.mark.take_turns
@pytest.mark.parametrize("other", [moved, cross_frame, features, latents])
def test_it_acts_beside_the_packs_other_effects_in_either_order(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, other: object
) -> None:
    module = motion_module()
    before = sample(applied(other(model, adaptor), motion_module=module), 4)
    behind = sample(other(applied(model, motion_module=module), adaptor), 4)
    assert torch.equal(before, behind)
    assert relative(before, sample(applied(model, motion_module=module), 4)) > 1e-4
    assert relative(before, sample(other(model, adaptor), 4)) > 1e-4


def test_kept_frames_come_out_bit_for_bit_and_the_new_ones_see_them(model: ModelPatcher, sample: Sampler) -> None:
    moving = applied(model)
    outs = []
    for seed in (1, 2):
        still = {"samples": noise_for(1, seed)}
        clip = expand_latent(still, 5, 1, keep_given=True)
        options = {"noise": noise_for(5), "noise_mask": clip["noise_mask"], "latent": clip["samples"]}
        outs.append(sample(moving, **options, steps=3))
        assert torch.equal(outs[-1][:1], still["samples"])
    assert relative(outs[0][1:], outs[1][1:]) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_follows_the_dtype_of_the_model(sample: Sampler, dtype: torch.dtype) -> None:
    whole, half = sample(applied(build_model()), 4), sample(applied(build_model(dtype=dtype)), 4)
    assert half.isfinite().all() and relative(half, whole) < 0.1


def test_layers_of_every_kind_hold_the_weights(either_layers: None) -> None:
    module = motion_module("v3", seed=9).model
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())
    assert len(list(module.parameters())) == 6 * 26


# Windows of the host


def windows(model: ModelPatcher, length: int, **more: object) -> ModelPatcher:
    return with_windows(model, length, 0, "batched", **(NO_ANCHOR | more))


def test_a_window_of_the_host_is_the_same_frames_alone(model: ModelPatcher, sample: Sampler) -> None:
    clip = noise_for(12)
    windowed = sample(windows(applied(model, "v2"), 4), 12, noise=clip)
    alone = torch.cat([sample(applied(model, "v2"), 4, noise=part) for part in clip.split(4)])
    assert relative(windowed, alone) <= CLOSE


def test_memory_for_a_window_is_planned_in_whichever_order_the_nodes_come(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = (
        (applied(model), 4),
        (windows(applied(model), 4), 12),
        (applied(windows(model, 4)), 12),
        (windows(model, 4), 12),
    )
    alone, behind, before, plain = planned_bytes(
        monkeypatch, *(partial(sample, bound, frames, steps=1) for bound, frames in runs)
    )
    assert alone == before == behind > plain


def test_v1_takes_its_norms_over_a_clip_in_the_hosts_windows_too(model: ModelPatcher, sample: Sampler) -> None:
    clips = noise_for(8)
    both = sample(windows(applied(model, "v1", frames_per_clip=4), 8), 8, noise=clips)
    assert relative(both, sample(applied(model, "v1", frames_per_clip=4), 8, noise=clips)) <= CLOSE
    longer = windows(applied(model, "v1", frames_per_clip=4), 6)
    with pytest.raises(ValueError, match="a window of Context Windows holds frames of two clips. Sample one clip"):
        sample(longer, 12)
    sample(windows(applied(model, "v1", frames_per_clip=4, group_norm="per frame"), 6), 12)
    with pytest.raises(ValueError, match="take group norms over clips of 4 and 8 frames"):
        sample(applied(applied(model, "v1", frames_per_clip=4), "v1", frames_per_clip=8), 8)


def test_hints_in_the_hosts_windows_are_those_of_their_frames(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nodes

    seen = record_hints(monkeypatch)
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        conditioning(1), conditioning(2), control_net(), numbered_hints(12), 1.0, 0.0, 1.0
    )
    sample(windows(applied(model), 4), 12, steps=1, positive=positive, negative=negative)
    assert [call[: len(call) // 2] for call in seen] == [list(range(start, start + 4)) for start in (0, 4, 8)]


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The UNet is never called."""
    called = []
    yield lambda model: model.model.diffusion_model.register_forward_pre_hook(lambda *_: called.append(1))
    assert called == []


def test_more_frames_than_positions_are_refused_before_the_first_step(
    model: ModelPatcher, sample: Sampler, no_step: object
) -> None:
    no_step(model)
    with pytest.raises(ValueError, match=r"given 25 frames that see each other.*AnimateDiff v1.*positions for 24"):
        sample(applied(model, "v1"), 25)
    with pytest.raises(ValueError, match=r"given 33 frames.*positions for 32.*context_length 16 behind Apply Motion"):
        sample(applied(model, "v2", frames_per_clip=33), 66)
    with pytest.raises(ValueError, match=r"given 40 frames.*Set context_length .* to less than 32"):
        sample(windows(applied(model, "v2"), 40), 60)


needs_anchor = pytest.mark.skipif(not NO_ANCHOR, reason="this host's windows have no frame in front")


@needs_anchor
def test_the_frame_in_front_of_a_window_counts(model: ModelPatcher, sample: Sampler, no_step: object) -> None:
    no_step(model)
    with pytest.raises(ValueError, match="given 25 frames that see each other"):
        sample(windows(applied(model, "v1"), 24, causal_window_fix=True), 48, steps=1)


@needs_anchor
def test_a_window_with_a_frame_in_front_may_fill_the_positions(model: ModelPatcher, sample: Sampler) -> None:
    assert sample(windows(applied(model, "v1"), 23, causal_window_fix=True), 46, steps=1).isfinite().all()


@pytest.mark.parametrize(("frames", "settings"), [(33, {"strength": 0.0}), (64, {"frames_per_clip": 32})])
def test_what_fits_is_not_refused(model: ModelPatcher, sample: Sampler, frames: int, settings: dict) -> None:
    assert sample(applied(model, "v2", **settings), frames, steps=1).isfinite().all()


def test_causal_windows_are_refused_where_they_would_cut_a_clip(
    model: ModelPatcher, sample: Sampler, no_step: object
) -> None:
    no_step(model)
    for bound in (with_causal_windows(applied(model), 4), applied(with_causal_windows(model, 4))):
        with pytest.raises(ValueError, match=r"Apply Motion Module lets each frame see .* 8 frames in chunks of 4"):
            sample(bound, 8)


def test_causal_windows_that_cut_no_clip_are_fine(model: ModelPatcher, sample: Sampler) -> None:
    whole = sample(applied(model), 4)
    assert torch.equal(sample(with_causal_windows(applied(model), 4), 4), whole)
    clips = sample(applied(model, frames_per_clip=4), 8)
    assert relative(sample(with_causal_windows(applied(model, frames_per_clip=4), 4), 8), clips) <= CLOSE
    still = with_causal_windows(applied(model, strength=0.0), 4)
    assert relative(sample(still, 8), sample(model, 8)) <= CLOSE


def test_frame_by_frame_is_refused(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, no_step: object
) -> None:
    no_step(model)
    bound = applied(bind(model, adaptor, order="frame by frame"))
    with pytest.raises(ValueError, match="sampled one after the other. Set order of Apply MagicVideo to together"):
        sample(bound, 4)


# What it asks the host for


def test_the_module_is_loaded_with_the_model_and_counted(model: ModelPatcher) -> None:
    module = motion_module()
    moving = applied(model, motion_module=module)
    assert moving.get_additional_models_with_key(BINDING_KEY) == [module]
    assert not model.get_additional_models_with_key(BINDING_KEY)
    effect = MotionModuleEffect.of(model, motion_module=module)
    assert planned_shape(model, [16, 4, 64, 64], [effect], 16, False)[0] > 16
    still = MotionModuleEffect.of(model, motion_module=module, strength=0.0)
    assert planned_shape(model, [16, 4, 64, 64], [still], 16, False)[0] == 16


def test_a_model_of_another_size_or_kind_is_refused(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=r"made for a UNet with 32, 96 channels at its levels.*input_blocks.1 .* 64"):
        applied(model, motion_module=motion_module("v3", Size((32, 96), 1)))
    with pytest.raises(ValueError, match=r"middle_block|input_blocks|output_blocks"):
        applied(model, motion_module=motion_module("v3", Size((64, 64), 2)))
    with pytest.raises(ValueError, match=r"works with SD1\.5 models, .* but this model is SD2\. Load an SD1\.5"):
        applied(build_model(comfy.supported_models.SD20))
    with pytest.raises(ValueError, match="made for a UNet"):
        applied(narrow_model())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_norm": "some"}, "group_norm of Apply Motion Module must be one of auto"),
        ({"noise_schedule": "some"}, "noise_schedule of Apply Motion Module must be one of auto"),
        ({"key_scale": float("nan")}, "key_scale of Apply Motion Module must be a finite number"),
        ({"strength": float("inf")}, "strength of Apply Motion Module must be a finite number"),
        ({"frames_per_clip": -1}, "frames_per_clip of Apply Motion Module must be 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(model: ModelPatcher, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        applied(model, **settings)


# A clip that ends where it begins


def test_in_closed_windows_a_clip_is_a_ring_and_in_open_ones_it_is_not(model: ModelPatcher, sample: Sampler) -> None:
    """Windows of 4 that overlap by 2 begin at every second frame of 8, the last over the seam: a turn by 2 changes
    nothing but the place."""
    drawn = noise_for(8)
    for closed in (True, False):
        ring = with_windows(applied(model), 4, 2, "looped_uniform", closed_loop=closed, **NO_ANCHOR)
        turned = sample(ring, 8, noise=drawn.roll(2, 0)).roll(-2, 0)
        assert (relative(turned, sample(ring, 8, noise=drawn)) <= CLOSE) == closed
