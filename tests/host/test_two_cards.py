"""Guidance split over several cards: the host copies model and adaptor for each, and a call uses those of its card."""

from dataclasses import replace

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from small_host import Sampler, build_model

from fake_card import CARD, fake_card
from magicvideo.adaptor_unet.adain import FrameStatistics, ReferenceStatistics
from magicvideo.adaptor_unet.cross_frame_attention import CrossFrameKvCache, LookBack
from magicvideo.adaptor_unet.host.binding import BINDING_KEY, with_effect
from magicvideo.adaptor_unet.host.causal_windows import Chunk
from magicvideo.adaptor_unet.host.effect import Effect
from magicvideo.adaptor_unet.host.frame_cache import EFFECTS_KEY, FRAMES_KEY, FrameCache
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
from magicvideo.adaptor_unet.temporal_attention import KvCache
from motion_modules import motion_module

pytestmark = pytest.mark.on_newest  # the oldest knows one card alone


@pytest.fixture
def bound(model: ModelPatcher, adaptor: ModelPatcher) -> ModelPatcher:
    model.cached_patcher_init = (build_model, ())  # as the host's own loaders set it
    return bind(model, adaptor)


def halve_own_weights(copied: ModelPatcher) -> None:
    """Of the network that the host has copied with the model."""
    (own,) = copied.get_additional_models_with_key("magicvideo")
    with torch.no_grad():
        for parameter in own.model.parameters():
            parameter.mul_(0.5)


def test_a_model_with_an_adaptor_can_be_copied_for_another_card(
    bound: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    expected = sample(bound, 4)
    copied = bound.deepclone_multigpu(torch.device("cpu"))
    (own,) = copied.get_additional_models_with_key("magicvideo")
    assert own.model is not adaptor.model
    assert torch.equal(sample(copied, 4), expected)


def test_a_copy_uses_the_adaptor_of_its_own_card(bound: ModelPatcher, sample: Sampler) -> None:
    expected = sample(bound, 4)
    copied = bound.deepclone_multigpu(torch.device("cpu"))
    halve_own_weights(copied)
    assert not torch.allclose(sample(copied, 4), expected)
    assert torch.equal(sample(bound, 4), expected)


def test_a_copy_uses_the_motion_module_of_its_own_card(model: ModelPatcher, sample: Sampler) -> None:
    model.cached_patcher_init = (build_model, ())
    bound = with_effect(model, MotionModuleEffect.of(model, motion_module=motion_module()))
    expected = sample(bound, 4)
    copied = bound.deepclone_multigpu(torch.device("cpu"))
    assert torch.equal(sample(copied, 4), expected)
    halve_own_weights(copied)
    assert not torch.allclose(sample(copied, 4), expected)
    assert torch.equal(sample(bound, 4), expected)


def of_card(copied: ModelPatcher) -> tuple[Effect, ...]:
    """The effects with the tensors of that copy, as a call on its card has them."""
    return tuple(effect.on(copied) for effect in copied.get_attachment(BINDING_KEY).effects)


def second_frame(bound: ModelPatcher, *of_frames: tuple[Effect, ...]) -> torch.Tensor:
    """What the UNet makes of the second of two frames, each in a call with these effects."""
    cache, generator = FrameCache(), torch.Generator().manual_seed(0)
    for place, effects in enumerate(of_frames):
        cache.begin_step(torch.ones(1))
        cache.begin_chunk()
        options = {
            FRAMES_KEY: cache,
            EFFECTS_KEY: effects,
            "context_window": Chunk([place], 2),
            "sigmas": torch.ones(1),
        }
        options |= {"uuids": ["one"], "cond_or_uncond": [0], "wrappers": bound.wrappers}
        x, text = torch.randn(1, 4, 4, 4, generator=generator), torch.randn(1, 7, 32, generator=generator)
        with torch.inference_mode():
            out = bound.model.diffusion_model(x, torch.ones(1), context=text, transformer_options=options)
    return out


def test_a_conditioning_that_comes_to_another_card_finds_its_past_there(bound: ModelPatcher) -> None:
    """Frame by frame the host may part conditionings among cards otherwise than for the frames before."""
    own, other = of_card(bound), of_card(bound.deepclone_multigpu(torch.device("cpu")))
    assert other[0].adaptor is not own[0].adaptor
    expected = second_frame(bound, own, own)
    assert torch.equal(second_frame(bound, own, other), expected)
    assert not torch.allclose(second_frame(bound, (replace(own[0], strength=0.0),), own), expected)


@pytest.mark.parametrize("keeps", [False, True])
def test_what_is_kept_on_one_card_comes_to_another(keeps: bool) -> None:
    other = torch.device("cuda:1")
    with fake_card():
        temporal, cross_frame, statistics = KvCache(), CrossFrameKvCache(), ReferenceStatistics(sigma=1.0)
        for card in (CARD, other, other):
            x = torch.empty(1, 6, 8, device=card)
            k, v = temporal.seen_with(0, x, x, 16)
            temporal.end_call((len(temporal.positions),), 16)
            seen = cross_frame.before(*2 * [rearrange(x, "f p c -> f 1 p c")])
            cross_frame.keep(LookBack(), (0,), *2 * [rearrange(x, "f p c -> f 1 p c")])
            own = FrameStatistics(torch.empty(1, 8, device=card), torch.empty(1, 8, device=card))
            found = statistics.reference(own, (0 if card == CARD else 1,))
            temporal.keeps = cross_frame.keeps = keeps
            assert {one.device for one in (k, v, *seen[0], *seen[1], found.mean, found.deviation)} == {card}
        assert len(k) == (3 if keeps else 2) and seen[0]
