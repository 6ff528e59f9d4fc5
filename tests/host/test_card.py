"""On a card: a call of the UNet makes no copy and no read, however many sites there are.

Tried without one, by fake tensors on ``cuda:0`` (``tests/support/fake_card.py``).
"""

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import trained
from ways import Way, cross_frame, features, last_frames, latents, moved, with_cross_frame_attention

from fake_card import CARD, Waits, call, fake_card, fused
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.causal_windows import Chunk
from magicvideo.adaptor_unet.host.frame_cache import FRAMES_KEY, MADE_ONCE_KEY, FrameCache, MadeOnce
from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
from magicvideo.adaptor_unet.host.noise_schedule import SAMPLING_OBJECT, sampled_like
from magicvideo.adaptor_unet.initialisation import new_adaptor
from motion_modules import motion_module

# What is copied and started in a call is the pack's own.
pytestmark = pytest.mark.on_newest

FRAMES = 8


def together(model: ModelPatcher, adaptor: ModelPatcher, *_: object) -> ModelPatcher:
    """All of them on one model."""
    return features(cross_frame(bind(model, adaptor, fps=23.976)))


# Cross-frame attention to the first frame, and AdaIN of features, are in what is all together.
@pytest.mark.parametrize("way", [moved, last_frames, latents, together])
def test_a_call_neither_copies_to_the_card_nor_reads_from_it(
    model: ModelPatcher, adaptor: ModelPatcher, way: Way
) -> None:
    bound, once = way(model, adaptor), MadeOnce()
    with fake_card(model, adaptor), torch.inference_mode():
        call(bound, FRAMES, **{MADE_ONCE_KEY: once})
        assert call(bound, FRAMES, **{MADE_ONCE_KEY: once}).found == {}


def test_nor_does_a_chunk_of_a_longer_clip(model: ModelPatcher, adaptor: ModelPatcher) -> None:
    bound, once, total = together(model, adaptor), MadeOnce(), 2 * FRAMES
    with fake_card(model, adaptor), torch.inference_mode():
        for _ in range(2):
            cache, found = FrameCache(), {}
            for start in range(0, total, FRAMES):
                cache.begin_chunk()  # without noise levels, which are read once a step where they are asked for
                chunk = Chunk(range(start, start + FRAMES), total)
                found |= call(bound, FRAMES, **{MADE_ONCE_KEY: once, FRAMES_KEY: cache, "context_window": chunk}).found
        assert found == {}


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_motion_module_neither_copies_nor_reads(model: ModelPatcher, variant: str) -> None:
    module, once = motion_module(variant), MadeOnce()
    bound = with_effect(model, MotionModuleEffect.of(model, motion_module=module))
    with fake_card(model, module), torch.inference_mode():
        call(bound, FRAMES, **{MADE_ONCE_KEY: once})
        assert call(bound, FRAMES, **{MADE_ONCE_KEY: once}).found == {}


@pytest.mark.parametrize("kind", ["v2", "lcm"])
def test_nor_does_the_noise_schedule_of_a_motion_module(model: ModelPatcher, kind: str) -> None:
    """Its tables stay where they are, whatever the host takes to the card."""
    schedule, values = (
        sampled_like(model, motion_module(kind).model.config.kind, "node").get_model_object(SAMPLING_OBJECT),
        [],
    )
    with fake_card(), torch.inference_mode():
        sigma = torch.empty(FRAMES, device=CARD)
        for _ in range(2):
            with Waits() as waits:
                values = [schedule.timestep(sigma), schedule.sigma(torch.empty(FRAMES, device=CARD))]
        assert waits.found == {} and {x.device for x in values} == {CARD}
    there = schedule.at(torch.device("cpu:0"))
    assert there is not schedule and torch.equal(there.timestep(schedule.sigmas), schedule.timestep(schedule.sigmas))


def test_what_is_made_at_the_first_call_does_not_grow_with_the_sites(
    model: ModelPatcher, adaptor: ModelPatcher
) -> None:
    with fake_card(model, adaptor), torch.inference_mode():
        waits = call(together(model, adaptor), FRAMES, **{MADE_ONCE_KEY: MadeOnce()})
        assert waits.found.total() < len(adaptor.model.config.convolutions)


def test_without_what_is_made_once_a_copy_would_be_seen(
    model: ModelPatcher, adaptor: ModelPatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeOnce, "get", lambda self, key, make: make())
    bound, once = moved(model, adaptor), MadeOnce()
    with fake_card(model, adaptor), torch.inference_mode():
        call(bound, FRAMES, **{MADE_ONCE_KEY: once})
        assert call(bound, FRAMES, **{MADE_ONCE_KEY: once}).found != {}


def test_a_long_clip_makes_no_more_than_a_trained_one(model: ModelPatcher, adaptor: ModelPatcher) -> None:
    bound, once, trained = moved(model, adaptor), MadeOnce(), adaptor.model.config.frames
    made = []
    with fake_card(model, adaptor), torch.inference_mode():
        for place in (0, trained - 1, trained, 3 * trained):
            call(bound, 1, **{MADE_ONCE_KEY: once, "context_window": Chunk([place], 4 * trained)})
            made.append(len(once.made))
    assert made[0] < made[1] == made[2] == made[3]


def counted(bound: ModelPatcher, *networks: ModelPatcher) -> Waits:
    """A call of 16 frames of 64x64 latents, after one at which things are made once."""
    options = {MADE_ONCE_KEY: MadeOnce(), "optimized_attention_override": fused}
    with fake_card(bound, *networks), torch.inference_mode():
        call(bound, 16, 64, **options)
        return call(bound, 16, 64, **options)


def scaled(model: ModelPatcher, *_: object) -> ModelPatcher:
    """Scale and shift alone."""
    return bind(model, trained(hosted(new_adaptor(config_for(model, parts=("frame", "spatial")), "random"))))


@pytest.mark.parametrize(("way", "most"), [(scaled, 2), (features, 12), (cross_frame, 14)])
def test_an_effect_starts_few_operations_at_a_site(model: ModelPatcher, way: Way, most: int) -> None:
    bound, config = way(model), config_for(model)
    sites = config.transformers if way is cross_frame else config.sites
    more = counted(bound, *bound.get_additional_models()).kernels - counted(model).kernels
    assert 0 < more / len(sites) <= most


def test_frames_that_lie_side_by_side_are_read_where_they_are(model: ModelPatcher) -> None:
    """A frame and the one before it are no more copied than the rows of one frame would be."""
    plain = counted(model).written
    beside, gathered = (
        counted(with_cross_frame_attention(model, look_back=rule, last_frames=1)).written - plain
        for rule in ("last", "first")
    )
    assert 0 < beside < 0.4 * gathered
