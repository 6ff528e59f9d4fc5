"""Frame by frame: exact, causal, with every sampler and conditioning, and right where sampling together is not."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import comfy.model_management
import comfy.samplers
import nodes
import pytest
import torch
from comfy.k_diffusion.sampling import get_sigmas_karras
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    BasicScheduler,
    CFGGuider,
    DualCFGGuider,
    KSamplerSelect,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_perpneg import PerpNeg, PerpNegGuider
from comfy_extras.nodes_video_model import VideoLinearCFGGuidance
from small_host import SIZE, Sampler, conditioning, noise_for
from stock_windows import NO_ANCHOR, with_windows
from torch import Tensor
from ways import Way, cross_frame, far_looking, features, last_frames, latents, sharp_model, untrained

from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.binding import BINDING_KEY, with_causal_windows
from magicvideo.adaptor_unet.host.causal_sampling import CausalSampling
from magicvideo.adaptor_unet.host.finished_frames import FinishedFrames
from magicvideo.adaptor_unet.host.frame_cache import FRAMES_KEY
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.sampling_order import SamplingOrder
from measures import relative
from small_controls import control_net, numbered_hints, record_hints

CLOSE = 1e-4


@pytest.fixture
def model() -> ModelPatcher:
    return sharp_model()


@pytest.fixture
def adaptor(model: ModelPatcher) -> ModelPatcher:
    """Looks back far and acts strongly."""
    return far_looking(model)


@pytest.fixture
def moving(model: ModelPatcher, adaptor: ModelPatcher) -> ModelPatcher:
    return bind(model, adaptor, order="frame by frame")


def keeping(frames: int, kept: int) -> Tensor:
    mask = torch.ones(frames, 1, SIZE, SIZE)
    mask[:kept] = 0
    return mask


# What samplers do is the host's; each of the two has some of them.
SAMPLERS = [
    "euler",
    "dpmpp_2m",
    *(pytest.param(name, marks=pytest.mark.on_oldest) for name in ("euler_ancestral", "dpmpp_sde", "ddim", "lms")),
    *(pytest.param(name, marks=pytest.mark.on_newest) for name in ("heun", "uni_pc", "lcm")),
]


@pytest.mark.take_turns
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_frames_to_come_change_nothing(moving: ModelPatcher, sample: Sampler, sampler: str) -> None:
    noise = noise_for(5)
    long = sample(moving, noise=noise, latent=torch.zeros_like(noise), sampler=sampler, steps=3)
    for frames in (1, 3):
        short = sample(moving, noise=noise[:frames], sampler=sampler, steps=3)
        assert torch.equal(short, long[:frames]), frames


@pytest.mark.take_turns
@pytest.mark.parametrize(
    ("sampler", "chunk"),
    [
        ("euler", 1),
        ("euler", 4),
        pytest.param("dpmpp_sde", 1, marks=pytest.mark.on_oldest),
        pytest.param("uni_pc", 1, marks=pytest.mark.on_newest),
    ],
)
def test_a_clip_that_is_extended_equals_the_clip_made_at_once(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, sampler: str, chunk: int
) -> None:
    """Past the trained length."""
    moving, noise = bind(model, adaptor, order="frame by frame", chunk=chunk), noise_for(8)
    how = {"noise": noise, "sampler": sampler, "steps": 3}
    once = sample(moving, latent=torch.zeros_like(noise), **how)
    given = expand_latent({"samples": once[:4]}, 8, 4, keep_given=True)
    again = sample(moving, latent=given["samples"], noise_mask=given["noise_mask"], **how)
    assert torch.equal(again, once)


def test_finished_frames_are_seen_and_noise_of_others_is_not(moving: ModelPatcher, sample: Sampler) -> None:
    noise, other = noise_for(4), noise_for(4, seed=1)
    before = sample(moving, noise=noise, latent=torch.zeros_like(noise))
    changed = torch.cat([noise[:1], other[1:2], noise[2:]])
    after = sample(moving, noise=changed, latent=torch.zeros_like(noise))
    assert torch.equal(after[:1], before[:1])
    assert all(relative(after[frame], before[frame]) > CLOSE for frame in range(1, 4))


def test_as_many_at_once_as_there_are_is_together(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    together = sample(bind(model, adaptor), 7)
    assert torch.equal(sample(bind(model, adaptor, order="frame by frame", chunk=7), 7), together)
    for chunk in (1, 3):
        assert relative(sample(bind(model, adaptor, order="frame by frame", chunk=chunk), 7), together) > CLOSE


@pytest.mark.parametrize("chunk", [1, 2])
def test_clips_of_a_batch_stand_side_by_side_and_do_not_mix(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, chunk: int
) -> None:
    how = {"order": "frame by frame", "chunk": chunk}
    batch = bind(model, adaptor, frames_per_clip=3, **how)
    one, other, third = noise_for(3), noise_for(3, seed=1), noise_for(3, seed=2)
    clips = sample(batch, noise=torch.cat([one, other]), latent=torch.zeros(6, 4, SIZE, SIZE))
    beside = sample(batch, noise=torch.cat([one, third]), latent=torch.zeros(6, 4, SIZE, SIZE))
    assert torch.equal(clips[:3], beside[:3])
    alone = [sample(bind(model, adaptor, **how), noise=x, latent=torch.zeros(3, 4, SIZE, SIZE)) for x in (one, other)]
    assert relative(clips, torch.cat(alone)) <= CLOSE


def with_rows_counted(model: ModelPatcher) -> tuple[ModelPatcher, list[int]]:
    """A clone of the model, and the rows of each call of its UNet from now on."""
    counted, rows = model.clone(), []

    def count(apply: Callable, given: dict) -> Tensor:
        rows.append(len(given["input"]))
        return apply(given["input"], given["timestep"], **given["c"])

    counted.set_model_unet_function_wrapper(count)
    return counted, rows


def test_a_clip_takes_one_call_a_frame_and_step_and_one_more_a_frame(moving: ModelPatcher, sample: Sampler) -> None:
    counted, rows = with_rows_counted(moving)
    sample(counted, 4, steps=3)
    assert rows == [2] * (4 * 3 + 3), "both sides of the guidance; the last frame need not be shown"
    rows.clear()
    sample(counted, noise=noise_for(5), latent=noise_for(5, 3), noise_mask=keeping(5, 3), steps=3)
    assert rows == [2] * (3 + 2 * 3 + 1), "given frames are shown, and cost no sampling"


def one_by_one(moving: ModelPatcher, sample: Sampler, noise: Tensor, guidances: Sequence[float]) -> Tensor:
    """A clip of as many frames as there are guidances, each added to those before it by extension."""
    clip = torch.zeros(0, 4, SIZE, SIZE)
    for frames, cfg in enumerate(guidances, start=1):
        latent = torch.cat([clip, torch.zeros(1, 4, SIZE, SIZE)])
        clip = sample(moving, noise=noise[:frames], latent=latent, noise_mask=keeping(frames, frames - 1), cfg=cfg)
    return clip


@pytest.mark.parametrize("later_cfg", [1.0, 2.5])
def test_frames_that_follow_others_have_a_guidance_of_their_own(
    model: ModelPatcher, adaptor: ModelPatcher, moving: ModelPatcher, sample: Sampler, later_cfg: float
) -> None:
    own, noise = bind(model, adaptor, order="frame by frame", later_cfg=later_cfg), noise_for(3)
    out = sample(own, noise=noise, latent=torch.zeros_like(noise), cfg=7.0)
    assert torch.equal(out, one_by_one(moving, sample, noise, [7.0, later_cfg, later_cfg]))
    twice = bind(own, adaptor, strength=1e-9, order="frame by frame")
    assert relative(sample(twice, noise=noise, latent=torch.zeros_like(noise), cfg=7.0), out) <= CLOSE


def test_without_guidance_later_frames_cost_half(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    counted, rows = with_rows_counted(bind(model, adaptor, order="frame by frame", later_cfg=1.0))
    sample(counted, 4, steps=3)
    assert rows == [2] * 3 + [1] * (3 * 3 + 3)


def test_a_guider_of_another_kind_keeps_its_guidance(
    model: ModelPatcher, adaptor: ModelPatcher, moving: ModelPatcher
) -> None:
    own = bind(model, adaptor, order="frame by frame", later_cfg=3.0)
    for how in ((BasicGuider, 2, [1]), (DualCFGGuider, 2, [1, 2, 3], 7.0, 5.0, "regular")):
        node, *given = how
        assert torch.equal(custom_sampled(node, own, *given), custom_sampled(node, moving, *given)), node


def test_guidance_that_rises_over_the_clip_does_so_frame_by_frame(moving: ModelPatcher, sample: Sampler) -> None:
    """The host's node for video models counts the frames of the batch."""
    rising, noise = moving.clone(), noise_for(4)
    rising = VideoLinearCFGGuidance().patch(rising, min_cfg=1.0)[0]
    out = sample(rising, noise=noise, latent=torch.zeros_like(noise), cfg=7.0)
    assert relative(out, one_by_one(moving, sample, noise, [1.0, 3.0, 5.0, 7.0])) <= CLOSE


def test_guidance_that_asks_the_model_itself_sees_the_frames_in_the_making_alone(
    moving: ModelPatcher, sample: Sampler
) -> None:
    """The host's Perp-Neg is there as a node on the model and as a guider, which must agree."""
    on_model, noise = PerpNeg.execute(moving, conditioning(5), 1.0)[0], noise_for(3)
    counted, rows = with_rows_counted(on_model)
    out = sample(counted, noise=noise, latent=torch.zeros_like(noise), cfg=7.0, steps=3)
    assert relative(out, custom_sampled(PerpNegGuider, moving, 3, [1, 2, 5], 7.0, 1.0)) <= CLOSE
    assert torch.equal(sample(on_model, noise=noise[:2], latent=torch.zeros_like(noise[:2]), cfg=7.0, steps=3), out[:2])
    assert max(rows) <= 3, "no call holds more than a frame for each text"


def test_auto_does_what_the_adaptor_was_trained_for(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    together, frames = (sample(bind(model, adaptor, order=order), 3) for order in ("together", "frame by frame"))
    assert torch.equal(sample(bind(model, adaptor), 3), together)
    adaptor.model.config = replace(adaptor.model.config, frame_noise_levels="finished_frames")
    assert torch.equal(sample(bind(model, adaptor), 3), frames)
    assert torch.equal(sample(bind(model, adaptor, order="together"), 3), together)


def test_strength_0_and_a_still_are_the_image_models(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    assert torch.equal(sample(bind(model, adaptor, order="frame by frame", strength=0.0), 5), sample(model, 5))
    same = fresh_adaptor(model)
    assert torch.equal(sample(bind(model, same, order="frame by frame"), 1), sample(model, 1))


def test_given_frames_come_out_bit_for_bit(moving: ModelPatcher, sample: Sampler) -> None:
    clip = noise_for(5, seed=4)
    out = sample(moving, noise=noise_for(5), latent=clip, noise_mask=keeping(5, 3))
    assert torch.equal(out[:3], clip[:3])
    assert not torch.isclose(out[3:], clip[3:]).all(dim=(1, 2, 3)).any()
    other = torch.cat([noise_for(2, seed=5), clip[2:]])
    assert relative(sample(moving, noise=noise_for(5), latent=other, noise_mask=keeping(5, 3))[3:], out[3:]) > CLOSE


def test_noise_that_is_in_the_latents_before_counts_beside_given_frames(moving: ModelPatcher, sample: Sampler) -> None:
    """As *AddNoise* and *DisableNoise* make it; else a frame to be made holds what its clip was filled up with."""
    given, noise = noise_for(1, seed=4), noise_for(3)
    loud = moving.model.process_latent_out(float(moving.model.model_sampling.sigma_max) * noise[1:])
    how = {"noise_mask": keeping(3, 1), "noise": torch.zeros_like(noise)}
    clips = [torch.cat([given, sign * loud]) for sign in (1, -1)]
    one, other = (sample(moving, latent=latent, **how) for latent in clips)
    assert relative(one[1:], other[1:]) > 0.1
    assert relative(one[1:], sample(moving, latent=torch.cat([given] * 3), **how | {"noise": noise})[1:]) < 0.05


def test_where_noise_rises_the_frames_before_are_seen_as_they_are(
    moving: ModelPatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """*FlipSigmas* turns a clip into its noise."""
    shown, finish = [], FinishedFrames.finish
    monkeypatch.setattr(
        FinishedFrames, "finish", lambda self, *what: (shown.append(what[1].clone()), finish(self, *what))
    )
    clip = noise_for(3, seed=4)
    sigmas = torch.tensor([0.03, 0.5, 2.0, 14.0])
    guider = comfy.samplers.CFGGuider(moving)
    guider.set_conds(conditioning(1), conditioning(2))
    with torch.inference_mode():
        guider.sample(torch.zeros_like(clip), clip, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
    inside = moving.model.process_latent_in(clip)
    torch.testing.assert_close(torch.cat(shown), inside)


def test_a_mask_inside_the_picture_and_video_to_video_stay_causal(moving: ModelPatcher, sample: Sampler) -> None:
    mask = torch.ones(4, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 0
    for how in ({"noise_mask": mask}, {"denoise": 0.5, "steps": 2}):
        clip = noise_for(4, seed=4)
        out = sample(moving, noise=noise_for(4), latent=clip, **how)
        assert out.isfinite().all()
        clip[2:] += 1
        later = sample(moving, noise=noise_for(4), latent=clip, **how)
        assert torch.equal(later[:2], out[:2]) and not torch.equal(later[2:], out[2:])


def test_two_halves_of_an_advanced_sampling_begin_alike_and_end_with_the_clip_in_them(
    moving: ModelPatcher, sample: Sampler
) -> None:
    """The first frame is given none, so it is that of one sampling; the others see what is known of those before."""
    noise = noise_for(3)
    whole = sample(moving, noise=noise, latent=torch.zeros_like(noise), steps=4)
    half = sample(moving, noise=noise, latent=torch.zeros_like(noise), steps=4, start_step=0, last_step=2)
    rest = {"steps": 4, "start_step": 2, "last_step": 4, "noise": torch.zeros_like(noise), "disable_noise": True}
    out = sample(moving, latent=half, **rest)
    assert relative(out[:1], whole[:1]) <= CLOSE
    assert out.isfinite().all()
    for first in (half, half.roll(1, 0)):  # whoever hands on other frames gets others
        assert torch.equal(sample(moving, latent=first, **rest)[:1], out[:1]) == (first is half)


def custom_sampled(guider: type, model: ModelPatcher, frames: int, texts: Sequence[int], *settings: object) -> Tensor:
    """Latents of the host's nodes for custom sampling, with a guider of that node for texts of these seeds."""

    class Noise:
        seed = 0

        def generate_noise(self, latent: dict) -> Tensor:
            return noise_for(frames)

    def first(output: object) -> object:
        return output[0] if isinstance(output, tuple) else output.result[0]

    make = getattr(guider, "get_guider", guider.execute)
    guide = first(make(model, *(conditioning(seed) for seed in texts), *settings))
    sigmas = first(BasicScheduler().get_sigmas(model, "normal", 3, 1.0))
    sampler = first(KSamplerSelect().get_sampler("euler"))
    start = {"samples": torch.zeros(frames, 4, SIZE, SIZE)}
    with torch.inference_mode():
        return first(SamplerCustomAdvanced().sample(Noise(), guide, sampler, sigmas, start))["samples"]


def test_custom_sampling_gives_the_same_clip(moving: ModelPatcher, sample: Sampler) -> None:
    out = custom_sampled(CFGGuider, moving, 5, [1, 2], 7.0)
    assert torch.equal(out, sample(moving, noise=noise_for(5), latent=torch.zeros(5, 4, SIZE, SIZE), steps=3))


@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_conditionings_together_or_apart_give_the_same(
    moving: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, cfg: float
) -> None:
    together = sample(moving, 3, cfg=cfg)
    monkeypatch.setattr(moving.model, "memory_required", lambda *_, **__: 1e30)
    assert relative(sample(moving, 3, cfg=cfg), together) <= CLOSE


def positions_seen(monkeypatch: pytest.MonkeyPatch) -> list[set[tuple[int, ...]]]:
    """At the end of each sampling, the frames that are kept, of all sites and conditionings."""
    seen: list[set[tuple[int, ...]]] = []
    clear = FinishedFrames.clear
    monkeypatch.setattr(
        FinishedFrames,
        "clear",
        lambda frames: (seen.append({entry.positions for _, entry in frames.entries.values()}), clear(frames)),
    )
    return seen


def test_a_conditioning_of_a_part_of_sampling_has_seen_all_finished_frames(
    moving: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the noise level at which frames are shown it does not act, and still must know them."""
    early = conditioning(3, start_percent=0.0, end_percent=0.4)
    late = conditioning(4, start_percent=0.4, end_percent=1.0)
    seen = positions_seen(monkeypatch)
    sample(moving, 4, steps=4, positive=early + late)
    assert seen == [{(0, 1, 2)}]


def test_a_conditioning_that_comes_late_catches_up(
    moving: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guider may leave a side out at some steps: at the others it must have seen all finished frames, each once."""
    late, calls = cross_frame(moving), iter(range(1000))

    def leaving_out(given: dict) -> list[Tensor]:
        sides = given["conds"] if next(calls) % 4 > 1 else given["conds"][:1]
        how = (given["input"], given["sigma"], given["model_options"])
        out = comfy.samplers.calc_cond_batch(given["model"], sides, *how)
        return [*out, *[torch.zeros_like(given["input"])] * (2 - len(out))]

    late.set_model_sampler_calc_cond_batch_function(leaving_out)
    seen = positions_seen(monkeypatch)
    assert sample(late, 4, steps=4).isfinite().all()
    assert seen == [{(0, 1, 2), (0, 2)}], "temporal attention looks at all of them, cross-frame attention at two"


def test_areas_masks_and_a_prompt_a_frame_reach_their_frames(moving: ModelPatcher, sample: Sampler) -> None:
    area = conditioning(3, area=(4, 4, 0, 0))
    mask = conditioning(4, mask=torch.ones(1, 8, 8), mask_strength=0.5)
    texts = torch.cat([conditioning(seed)[0][0] for seed in range(4)])
    per_frame = [[texts, {}]]
    changed = [[torch.cat([texts[:2], texts[:2]]), {}]]
    for first, other in ((conditioning(1) + area + mask, None), (per_frame, changed)):
        out = sample(moving, 4, size=8, positive=first)
        assert torch.equal(sample(moving, 4, size=8, positive=first), out) and out.isfinite().all()
        if other is not None:
            after = sample(moving, 4, size=8, positive=other)
            assert torch.equal(after[:2], out[:2])
            assert all(relative(after[frame], out[frame]) > CLOSE for frame in (2, 3))


def test_a_prompt_takes_effect_from_its_frame_on(moving: ModelPatcher, sample: Sampler) -> None:
    """Two prompts by masks that cover some frames each, as the template does it with stock nodes."""
    first, rest = torch.zeros(2, 4, 64, 64)
    first[:2], rest[2:] = 1, 1

    def prompts(second: int) -> list:
        return conditioning(1, mask=first, mask_strength=1.0) + conditioning(second, mask=rest, mask_strength=1.0)

    one, other = (sample(moving, 4, positive=prompts(second)) for second in (3, 4))
    assert torch.equal(one[:2], other[:2])
    assert all(relative(one[frame], other[frame]) > CLOSE for frame in range(2, 4))
    assert relative(one[:2], sample(moving, 2, positive=conditioning(1))) <= CLOSE


def test_each_frame_gets_its_own_controlnet_hint(
    moving: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record_hints(monkeypatch)
    node = nodes.ControlNetApplyAdvanced()
    positive, negative = node.apply_controlnet(
        conditioning(1), conditioning(2), control_net(), numbered_hints(5), 1.0, 0.0, 1.0
    )
    sample(moving, 5, steps=2, positive=positive, negative=negative)
    frames = [call[0] for call in seen]
    assert frames == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4], "two steps a frame, and shown once to the next"


def test_a_motion_of_a_part_of_sampling_sees_the_frames_before(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    noise, other = noise_for(3), noise_for(3, seed=1)
    bound = bind(model, adaptor, order="frame by frame", end_percent=0.5)
    changed = torch.cat([other[:1], noise[1:]])
    one, two = (sample(bound, noise=x, latent=torch.zeros_like(noise), steps=4) for x in (noise, changed))
    assert relative(two[1:], one[1:]) > CLOSE


@pytest.mark.take_turns
@pytest.mark.parametrize("way", [cross_frame, last_frames, features, latents, untrained])
def test_other_effects_take_the_finished_frames_for_reference(moving: ModelPatcher, sample: Sampler, way: Way) -> None:
    both, noise = way(moving), noise_for(4)
    out = sample(both, noise=noise, latent=torch.zeros_like(noise))
    assert relative(out, sample(moving, noise=noise, latent=torch.zeros_like(noise))) > CLOSE
    changed = torch.cat([noise_for(1, seed=9), noise[1:]])
    assert relative(sample(both, noise=changed, latent=torch.zeros_like(noise))[1:], out[1:]) > CLOSE
    short = sample(both, noise=noise[:2], latent=torch.zeros(2, 4, SIZE, SIZE))
    assert torch.equal(short, out[:2])


def test_two_motions_keep_their_frames_apart(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    twice = bind(bind(model, adaptor, strength=0.5, order="frame by frame"), adaptor, strength=0.5)
    once = bind(model, adaptor, order="frame by frame")
    assert relative(sample(twice, 4), sample(once, 4)) <= CLOSE


def test_causal_windows_beside_it_bound_the_chunk_and_may_offload(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    wide = bind(model, adaptor, order="frame by frame", chunk=8)
    narrow = bind(model, adaptor, order="frame by frame", chunk=2)
    expected = sample(narrow, 5)
    for offload in (False, True):
        assert torch.equal(sample(with_causal_windows(wide, 2, offload), 5), expected)


def test_what_cannot_be_sampled_so_is_refused_before_the_first_step(
    moving: ModelPatcher, model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    with pytest.raises(ValueError, match="needs no context windows"):
        sample(with_windows(moving, 4, 0, "batched", **NO_ANCHOR), 8)
    with pytest.raises(ValueError, match="count 2, 4 frames a clip"):
        sample(bind(bind(model, adaptor, frames_per_clip=2, order="frame by frame"), adaptor, frames_per_clip=4), 4)
    with pytest.raises(ValueError, match="order of Apply MagicVideo must be one of auto, together, frame by frame"):
        bind(model, adaptor, order="backwards")
    with pytest.raises(ValueError, match="chunk of Apply MagicVideo must be 1 or more, found 0"):
        bind(model, adaptor, chunk=0)
    for value in (-1.0, math.nan):
        with pytest.raises(ValueError, match="later_cfg of Apply MagicVideo must be 0 or more"):
            bind(model, adaptor, later_cfg=value)


@pytest.mark.parametrize("error", [comfy.model_management.InterruptProcessingException, MemoryError])
def test_stopped_at_any_moment_nothing_is_left_behind(moving: ModelPatcher, sample: Sampler, error: type) -> None:
    expected = sample(moving, 3)
    for stop_at in (1, 3, 8):
        calls = iter(range(1, 100))

        def stop(apply: Callable, given: dict, calls: Iterator[int] = calls, stop_at: int = stop_at) -> Tensor:
            if next(calls) == stop_at:
                raise error
            return apply(given["input"], given["timestep"], **given["c"])

        stopped = moving.clone()
        stopped.set_model_unet_function_wrapper(stop)
        with pytest.raises(error):
            sample(stopped, 3)
        assert not any(module._forward_hooks for module in moving.model.diffusion_model.modules())
        assert torch.equal(sample(moving, 3), expected)


def test_progress_counts_all_frames_and_shows_the_one_in_the_making(moving: ModelPatcher, sample: Sampler) -> None:
    told: list[tuple[int, int, Tensor]] = []
    out = sample(moving, 4, steps=3, callback=lambda step, x0, x, total: told.append((step, total, x0.clone())))
    assert [(step, total) for step, total, _ in told] == [(step, 12) for step in range(12)]
    inside = moving.model.process_latent_in(out)
    for step in (3, 6, 9):  # the first row is the frame in the making, the last ones are finished
        assert torch.allclose(told[step][2][-1], inside[step // 3 - 1], atol=1e-4)
    assert torch.allclose(told[-1][2][:3], inside[:3], atol=1e-4)


def test_where_noise_is_left_the_last_call_has_what_each_frame_is_taken_for(
    moving: ModelPatcher, sample: Sampler
) -> None:
    """Nodes show it as the denoised output, of a first half too."""
    told: list[tuple[Tensor, Tensor]] = []
    sample(moving, 3, steps=4, last_step=2, callback=lambda step, x0, x, total: told.append((x0.clone(), x.clone())))
    steps = len(told) // 3
    for frame in range(3):  # what was told when the frame was in the making, which then came first
        taken_for, noisy = (rows[0 if frame < 2 else 2] for rows in told[(frame + 1) * steps - 1])
        assert torch.equal(told[-1][0][frame], taken_for) and not torch.equal(taken_for, noisy)


def test_memory_is_planned_for_a_chunk_and_what_is_kept(
    model: ModelPatcher, adaptor: ModelPatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(bound: ModelPatcher, frames: int) -> int:
        shapes: list[int] = []
        binding = bound.get_attachment(BINDING_KEY)
        binding.around_planning(lambda model, shape, *_, **__: shapes.append(shape[0]), bound, [frames, 4, 8, 8])
        return shapes[0]

    together, frames = bind(model, adaptor), bind(model, adaptor, order="frame by frame")
    assert planned(frames, 64) < planned(together, 64) / 4
    assert planned(frames, 64) == planned(frames, 640)
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 2000.0)
    assert planned(frames, 16) > planned(frames, 1), "what is kept weighs too"
    assert planned(with_causal_windows(frames, 8, offload=True), 16) == planned(frames, 1)


class GaussianFrames:
    """Stands for a trained network: the exact directed denoiser of frames that are Gaussian with a known covariance.

    A pixel's values over the frames have covariance ``rho^|i - j|``.  It knows what a directed network knows: the noisy
    frames of a call up to each frame, and the finished frames that it was shown.
    """

    def __init__(self, model: ModelPatcher, frames: int, rho: float) -> None:
        place = torch.arange(frames)
        self.covariance = rho ** (place[:, None] - place[None, :]).abs().float()
        self.inner_model, self.model_patcher, self.cfg, self.shown = model.model, model, 1.0, {}
        self.conds = {"positive": [{"uuid": "one"}]}

    def __call__(self, x: Tensor, sigma: Tensor, model_options: dict, seed: int | None = None) -> Tensor:
        frames, conds = model_options["transformer_options"][FRAMES_KEY], list(self.conds.values())
        return frames.show_then_denoise(self.denoised, self.inner_model, conds, x, sigma, model_options)[0]

    def denoised(self, model: object, conds: list, x: Tensor, sigma: Tensor, options: dict) -> list[Tensor]:
        frames, places = options["transformer_options"][FRAMES_KEY], options["transformer_options"]["context_window"]
        seen = dict(self.shown)
        out = []
        for row, place in enumerate(places.index_list):
            seen[place] = (x[row], float(sigma[row]))
            known = sorted(seen)
            noise = torch.diag(torch.tensor([seen[k][1] ** 2 for k in known]))
            weights = torch.linalg.solve(self.covariance[known][:, known] + noise, self.covariance[known, place])
            out.append(sum(w * seen[k][0] for w, k in zip(weights, known, strict=True)))
        if frames.keeps:
            self.shown = seen
        return [torch.stack(out)]


@pytest.mark.parametrize(("chunk", "right"), [(1, True), (2, False), (6, False)])
def test_only_frame_by_frame_does_an_exact_directed_denoiser_give_the_clips_that_it_knows(
    model: ModelPatcher, chunk: int, right: bool
) -> None:
    """The reason for all this, as docs/method.md tells it: together, exact knowledge gives the wrong clips."""
    frames = 6
    exact = GaussianFrames(model, frames, rho=0.9)
    sigmas = get_sigmas_karras(40, 0.01, 200.0)  # so much noise that nothing of a frame's mean is missing in it
    noise = torch.randn(frames, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    sampler = comfy.samplers.ksampler("heun")
    causal = CausalSampling(SamplingOrder(chunk, 0.03), frames)
    args = {"model_options": {"transformer_options": {}}, "seed": 0}
    out = causal.sample(sampler.sample, exact, sigmas, args, None, noise, torch.zeros_like(noise), None, True)
    found = torch.cov(out.flatten(1))
    off = float((found - exact.covariance).abs().max())
    assert off < 0.05 if right else off > 0.25
