"""Shared noise as the host's samplers take it."""

from dataclasses import replace

import comfy.sample
import comfy.samplers
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import (
    AddNoise,
    BasicScheduler,
    Noise_EmptyNoise,
    Noise_RandomNoise,
    SamplerCustomAdvanced,
)
from small_host import conditioning
from torch import Tensor

from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.noise import FrameNoise
from measures import relative

KINDS = ["mixed", "progressive"]
# Odd, so that a batch of odd latents is no multiple of the 16 numbers that torch draws at once.
LENGTHS = (15, 31)


def latent(frames: int = 16, height: int = 8, width: int = 8, **more: object) -> dict:
    return {"samples": torch.zeros(frames, 4, height, width), **more}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [latent(5), latent(5, 7, 9), latent(2, batch_index=[3, 1])])
def test_with_nothing_shared_it_is_the_stock_random_noise_bit_for_bit(kind: str, given: dict) -> None:
    assert torch.equal(FrameNoise(7, 0.0, kind).generate_noise(given), Noise_RandomNoise(7).generate_noise(given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (65, 49)])
@pytest.mark.parametrize("indexed", [False, True])
def test_the_first_frame_keeps_the_stock_noise_and_extending_leaves_all_there_are(
    kind: str, size: tuple[int, int], indexed: bool
) -> None:
    more = [{"batch_index": list(range(n))} if indexed else {} for n in LENGTHS]
    short, long = (
        FrameNoise(7, 0.5, kind).generate_noise(latent(n, *size, **m)) for n, m in zip(LENGTHS, more, strict=True)
    )
    assert torch.equal(long[: len(short)], short)
    assert torch.equal(short[0], Noise_RandomNoise(7).generate_noise(latent(LENGTHS[0], *size, **more[0]))[0])
    assert not torch.equal(short[1], Noise_RandomNoise(7).generate_noise(latent(LENGTHS[0], *size, **more[0]))[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_cut_out_of_a_batch_gets_the_noise_of_its_places(kind: str) -> None:
    noise = FrameNoise(7, 0.6, kind, frames_per_clip=8)
    whole = noise.generate_noise(latent(16))
    assert torch.equal(noise.generate_noise(latent(3, batch_index=[9, 2, 15])), whole[[9, 2, 15]])


def test_a_clip_that_expand_latent_lengthens_keeps_its_noise() -> None:
    noise = FrameNoise(7, 0.6, "progressive")
    given = {"samples": torch.ones(4, 4, 8, 8)}
    longer = expand_latent(given, 9, 4, keep_given=True)
    assert torch.equal(noise.generate_noise(longer)[:4], noise.generate_noise(given))


@pytest.mark.parametrize("kind", KINDS)
def test_clips_of_a_batch_share_nothing(kind: str) -> None:
    noise = FrameNoise(7, 0.9, kind, frames_per_clip=4).generate_noise(latent(8, 64, 64))
    plain = Noise_RandomNoise(7).generate_noise(latent(8, 64, 64))
    assert torch.equal(noise[[0, 4]], plain[[0, 4]])
    assert abs(float((noise[3] * noise[4]).mean())) < 0.05 and float((noise[0] * noise[1]).mean()) > 0.9


def test_a_batch_of_no_whole_clips_and_unusable_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="frames_per_clip of Frame Noise is 3, but the latent batch holds 4 frames"):
        FrameNoise(7, 0.5, frames_per_clip=3).generate_noise(latent(4))
    with pytest.raises(ValueError, match="share of Frame Noise must lie in 0 to 1, found 2"):
        FrameNoise(7, 2.0)


def sigmas_of(model: ModelPatcher, scheduler: str = "normal") -> Tensor:
    made = BasicScheduler().execute(model, scheduler, 4, 1.0)
    return getattr(made, "result", made)[0]


def custom_sampled(model: ModelPatcher, noise: object, given: dict, scheduler: str = "normal") -> Tensor:
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning(1), conditioning(2))
    guider.set_cfg(5.0)
    with torch.inference_mode():
        sampler = comfy.samplers.sampler_object("euler")
        out = SamplerCustomAdvanced().execute(noise, guider, sampler, sigmas_of(model, scheduler), given)
    return getattr(out, "result", out)[0]["samples"]


def test_the_stock_custom_sampler_takes_it_whole_or_in_chunks(model: ModelPatcher, adaptor: ModelPatcher) -> None:
    bound, noise = bind(model, adaptor), FrameNoise(3, 0.7, "progressive")
    whole = custom_sampled(bound, noise, latent(6))
    assert relative(custom_sampled(with_causal_windows(bound, 2), noise, latent(6)), whole) < 1e-4
    assert not torch.equal(whole, custom_sampled(bound, Noise_RandomNoise(3), latent(6)))


def test_add_noise_and_the_advanced_ksampler_come_to_nearly_the_same(model: ModelPatcher) -> None:
    """The host scales noise by sigma there, and by the root of 1 + sigma squared where a sampler begins at the top."""
    noise = FrameNoise(3, 0.7)
    with torch.inference_mode():
        noised = AddNoise().execute(model, noise, sigmas_of(model), latent(4))
        noised = getattr(noised, "result", noised)[0]
        sampler = nodes.KSamplerAdvanced()
        settings = (model, "disable", 3, 4, 5.0, "euler", "normal", conditioning(1), conditioning(2), noised, 0, 4)
        (out,) = sampler.sample(*settings, "disable")
    assert relative(out["samples"], custom_sampled(model, noise, latent(4))) < 0.02


def sharing(adaptor: ModelPatcher, share: float) -> ModelPatcher:
    """The adaptor as if it had been trained with shared noise."""
    adaptor.model.config = replace(adaptor.model.config, shared_noise=share)
    return adaptor


def ksampled(model: ModelPatcher, frames: int = 4) -> Tensor:
    """By the stock KSampler, as ``custom_sampled`` samples."""
    with torch.inference_mode():
        texts = conditioning(1), conditioning(2)
        return nodes.KSampler().sample(model, 3, 4, 5.0, "euler", "normal", *texts, latent(frames))[0]["samples"]


def test_an_adaptor_trained_with_shared_noise_gets_it_from_any_sampler(model: ModelPatcher) -> None:
    """A new adaptor changes nothing but the noise."""
    bound = bind(model, sharing(fresh_adaptor(model), 0.3))
    expected = custom_sampled(model, FrameNoise(3, 0.3, "mixed"), latent(4))
    assert torch.equal(ksampled(bound), expected)
    assert torch.equal(custom_sampled(bound, Noise_RandomNoise(3), latent(4)), expected)
    assert relative(ksampled(model), expected) > 0.1


def test_at_strength_0_and_for_an_adaptor_trained_without_the_noise_is_the_samplers(model: ModelPatcher) -> None:
    stock = ksampled(model)
    assert torch.equal(ksampled(bind(model, sharing(fresh_adaptor(model), 0.3), strength=0.0)), stock)
    assert torch.equal(ksampled(bind(model, fresh_adaptor(model))), stock)


def test_each_clip_of_a_batch_shares_its_own_first_frames_noise(model: ModelPatcher) -> None:
    bound = bind(model, sharing(fresh_adaptor(model), 0.3), frames_per_clip=2)
    assert torch.equal(ksampled(bound), custom_sampled(model, FrameNoise(3, 0.3, "mixed", 2), latent(4)))


def test_of_two_adaptors_the_one_that_shares_most_decides_in_any_order(model: ModelPatcher) -> None:
    expected = custom_sampled(model, FrameNoise(3, 0.3, "mixed"), latent(4))
    for shares in ((0.1, 0.3), (0.3, 0.1)):
        bound = model
        for share in shares:
            bound = bind(bound, sharing(fresh_adaptor(model), share))
        assert torch.equal(ksampled(bound), expected)


def added_before(model: ModelPatcher, noise: object, scheduler: str = "normal") -> Tensor:
    """By Add Noise, and a sampler with Disable Noise."""
    with torch.inference_mode():
        noised = AddNoise().execute(model, noise, sigmas_of(model, scheduler), latent(4))
    return custom_sampled(model, Noise_EmptyNoise(), getattr(noised, "result", noised)[0], scheduler)


def test_noise_that_is_added_before_the_sampler_is_named_and_may_be_shared_by_hand(
    model: ModelPatcher, caplog: pytest.LogCaptureFixture
) -> None:
    bound = bind(model, sharing(fresh_adaptor(model), 0.3))
    ksampled(bound)
    by_hand = added_before(bound, FrameNoise(3, 0.3, "mixed"))
    assert relative(by_hand, ksampled(bound)) < 0.02
    assert "added before the sampler" not in caplog.text
    assert relative(added_before(bound, Noise_RandomNoise(3)), ksampled(bound)) > 0.1
    assert (
        "added before the sampler. Give the node that adds it Frame Noise with kind mixed and share 0.3" in caplog.text
    )


def test_it_is_named_too_where_a_schedule_begins_below_the_top(
    model: ModelPatcher, caplog: pytest.LogCaptureFixture
) -> None:
    bound, scheduler = bind(model, sharing(fresh_adaptor(model), 0.3)), "ddim_uniform"
    assert sigmas_of(model, scheduler)[0] < 0.9 * sigmas_of(model)[0]
    added_before(bound, FrameNoise(3, 0.3, "mixed"), scheduler)
    assert "added before the sampler" not in caplog.text
    added_before(bound, Noise_RandomNoise(3), scheduler)
    assert "added before the sampler" in caplog.text


def test_where_a_sampler_adds_no_noise_none_is_added(model: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    given = latent(4, 16, 16)
    given["samples"] += 1
    sampled = []
    for one in (model, bind(model, sharing(fresh_adaptor(model), 0.3))):
        with torch.inference_mode():
            settings = (one, "disable", 3, 4, 5.0, "euler", "normal", conditioning(1), conditioning(2), given, 2, 4)
            sampled.append(nodes.KSamplerAdvanced().sample(*settings, "disable")[0]["samples"])
    assert torch.equal(*sampled)
    assert "added before the sampler" not in caplog.text, "it goes on with what another has begun"
