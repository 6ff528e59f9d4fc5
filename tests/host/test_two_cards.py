"""Guidance split over several cards: the host copies model and adaptor for each, and a call uses those of its card."""

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, build_model

from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
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
