"""Extending: given frames stay bit for bit, new ones follow them, and it makes no difference in how many goes."""

import comfy.sample
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import SIZE, Sampler, conditioning, noise_for, trained
from torch import Tensor
from ways import far_looking

from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.nodes.clip import ExpandLatent
from measures import relative

Latent = dict[str, Tensor]


@pytest.fixture
def moving(model: ModelPatcher) -> ModelPatcher:
    return bind(model, far_looking(model))


def given(frames: int, seed: int = 4) -> Latent:
    return {"samples": torch.randn(frames, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))}


def sampled(sample: Sampler, model: ModelPatcher, latent: Latent, **options: object) -> Latent:
    """As the KSampler node: the latent that comes out still has its noise mask."""
    frames = latent["samples"].shape[0]
    options = {"noise": noise_for(frames), "noise_mask": latent.get("noise_mask")} | options
    return latent | {"samples": sample(model, latent=latent["samples"], **options)}


# What samplers do is the host's; each of the two has some of them.
SAMPLERS = [
    "euler",
    "dpmpp_2m",
    *(pytest.param(name, marks=pytest.mark.on_oldest) for name in ("euler_ancestral", "ddim")),
    *(pytest.param(name, marks=pytest.mark.on_newest) for name in ("uni_pc", "dpmpp_sde")),
]


@pytest.mark.take_turns
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_given_frames_come_out_bit_for_bit_and_new_ones_are_made(
    moving: ModelPatcher, sample: Sampler, sampler: str, windowed: bool
) -> None:
    model = with_causal_windows(moving, 4) if windowed else moving
    clip = given(5)
    out = sampled(sample, model, expand_latent(clip, 11, 5, keep_given=True), sampler=sampler, steps=3)["samples"]
    assert torch.equal(out[:5], clip["samples"])
    assert out.isfinite().all() and not torch.isclose(out[5:], clip["samples"][4]).all(dim=(1, 2, 3)).any()


def test_without_keep_given_the_given_frames_are_made_anew(moving: ModelPatcher, sample: Sampler) -> None:
    clip = given(5)
    out = sampled(sample, moving, expand_latent(clip, 8, 5))["samples"]
    assert not torch.isclose(out[:5], clip["samples"]).all(dim=(1, 2, 3)).any()


def test_new_frames_depend_on_the_given_ones(moving: ModelPatcher, sample: Sampler) -> None:
    """Only an earlier frame differs, not the last one, which the new frames start from."""
    one, other = given(5), given(5)
    other["samples"][1] = given(1, seed=9)["samples"][0]
    outs = [sampled(sample, moving, expand_latent(clip, 8, 5, keep_given=True))["samples"] for clip in (one, other)]
    assert relative(outs[0][5:], outs[1][5:]) > 3e-5


def test_the_unet_sees_given_frames_at_the_noise_level_of_the_step(
    model: ModelPatcher, moving: ModelPatcher, sample: Sampler
) -> None:
    clip, noise, seen = given(3), noise_for(6), []
    model.model.diffusion_model.register_forward_pre_hook(lambda unet, args: seen.append(args[0]))
    sampled(sample, moving, expand_latent(clip, 6, 3, keep_given=True), cfg=1.0, steps=3)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 3)[:-1]
    latent = model.model.process_latent_in(clip["samples"])
    assert len(seen) == len(sigmas) == 3
    for x, sigma in zip(seen, sigmas, strict=True):
        torch.testing.assert_close(x[:3], (latent + sigma * noise[:3]) / (sigma**2 + 1) ** 0.5, rtol=1e-4, atol=1e-4)


def test_a_still_becomes_a_clip_that_begins_with_it(moving: ModelPatcher, sample: Sampler) -> None:
    still = given(1)
    out = sampled(sample, moving, expand_latent(still, 8, keep_given=True))["samples"]
    assert torch.equal(out[:1], still["samples"]) and not torch.isclose(out[1:], out[:1]).all(dim=(1, 2, 3)).any()


def test_several_clips_are_extended_each_by_itself(model: ModelPatcher, sample: Sampler) -> None:
    adaptor = far_looking(model)
    together, alone = bind(model, adaptor, frames_per_clip=7), bind(model, adaptor)
    clips, noise = given(6), noise_for(14)
    out = sampled(sample, with_causal_windows(together, 4), expand_latent(clips, 7, 3, keep_given=True), noise=noise)
    for clip in (0, 1):
        part = {"samples": clips["samples"][3 * clip : 3 * clip + 3]}
        latent = expand_latent(part, 7, 3, keep_given=True)
        single = sampled(sample, alone, latent, noise=noise[7 * clip : 7 * clip + 7])["samples"]
        assert relative(out["samples"][7 * clip : 7 * clip + 7], single) <= 1e-4


@pytest.mark.take_turns
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_4_frames_to_12_in_one_go_or_in_two_begin_alike(
    moving: ModelPatcher, sample: Sampler, sampler: str, windowed: bool
) -> None:
    model = with_causal_windows(moving, 2) if windowed else moving
    clip = given(4)
    once = sampled(sample, model, expand_latent(clip, 12, 4, keep_given=True), sampler=sampler)
    half = sampled(sample, model, expand_latent(clip, 8, 4, keep_given=True), sampler=sampler)
    twice = sampled(sample, model, expand_latent(half, 12, 8, keep_given=True), sampler=sampler)
    assert torch.equal(twice["samples"][:8], half["samples"])
    assert relative(once["samples"][:8], half["samples"]) <= (0.0 if windowed else 1e-5)
    assert torch.equal(once["samples"][:4], clip["samples"])


def test_a_run_that_leaves_noise_leaves_it_in_given_frames_too(moving: ModelPatcher, sample: Sampler) -> None:
    latent = expand_latent(given(3), 6, 3, keep_given=True)
    whole = sampled(sample, moving, latent, steps=4)["samples"]
    half = sampled(sample, moving, latent, steps=4, start_step=0, last_step=2, force_full_denoise=False)
    assert not torch.isclose(half["samples"][:3], latent["samples"][:3]).all(dim=(1, 2, 3)).any()
    rest = {
        "steps": 4,
        "start_step": 2,
        "noise": torch.zeros(6, 4, SIZE, SIZE),
        "disable_noise": True,
        "noise_mask": None,
    }
    unmasked = sampled(sample, moving, half, **rest)["samples"]
    assert unmasked.isfinite().all() and not torch.equal(unmasked, whole)


def test_a_mask_inside_the_picture_is_the_hosts_business(
    model: ModelPatcher, moving: ModelPatcher, sample: Sampler
) -> None:
    mask = torch.ones(6, 1, SIZE, SIZE)
    mask[:, :, : SIZE // 2] = 0
    off = bind(model, trained(fresh_adaptor(model)), strength=0.0)
    for one in (off, bind(model, fresh_adaptor(model))):
        expected = sampled(sample, model, given(6), noise_mask=mask)["samples"]
        assert torch.equal(sampled(sample, one, given(6), noise_mask=mask)["samples"], expected)


def test_the_stock_ksampler_node_extends_a_clip(moving: ModelPatcher) -> None:
    clip = given(3)
    latent = expand_latent(clip, 6, 3, keep_given=True)
    with torch.inference_mode():
        (out,) = nodes.KSampler().sample(
            moving, 7, 2, 5.0, "euler", "normal", conditioning(1), conditioning(2), latent, denoise=1.0
        )
    assert torch.equal(out["samples"][:3], clip["samples"]) and out["samples"].shape[0] == 6


def test_a_workflow_from_before_keep_given_still_runs_and_keeps_nothing() -> None:
    kinds = ExpandLatent.INPUT_TYPES()
    assert list(kinds["required"]) == ["latent", "frames", "frames_per_clip"]
    assert kinds["optional"]["keep_given"][1]["default"] is False
    (latent,) = ExpandLatent.execute(given(2), 4, 2).args
    assert "noise_mask" not in latent
