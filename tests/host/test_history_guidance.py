"""History guidance: the negative side sees finished frames under more noise, and guidance leads away from that."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import SIZE, Sampler, conditioning, noise_for
from torch import Tensor
from ways import far_looking, sharp_model

from magicvideo.adaptor_unet.adaptor import CONTEXT_NOISE
from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

CLOSE, NOISE = 1e-4, 0.5
HOW = {"order": "frame by frame"}


@pytest.fixture
def model() -> ModelPatcher:
    return sharp_model()


@pytest.fixture
def adaptor(model: ModelPatcher) -> ModelPatcher:
    """Looks back far and acts strongly."""
    return far_looking(model)


@pytest.fixture
def guided(model: ModelPatcher, adaptor: ModelPatcher) -> ModelPatcher:
    return bind(model, adaptor, history_noise=NOISE, **HOW)


def test_guidance_leads_from_what_the_negative_side_makes_of_noisier_frames(
    model: ModelPatcher, adaptor: ModelPatcher, guided: ModelPatcher, sample: Sampler
) -> None:
    """In a single step to the end, where the sample is the prediction."""
    mask = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, SIZE, SIZE)
    latent = torch.cat([noise_for(1, seed=5), torch.zeros(1, 4, SIZE, SIZE)])
    how = {"noise": noise_for(2), "latent": latent, "noise_mask": mask, "steps": 1}
    positive, negative = conditioning(1), conditioning(2)

    def alone(text: list, context_noise: float) -> Tensor:
        adaptor.model.config = replace(adaptor.model.config, context_noise=context_noise)
        return sample(bind(model, adaptor, **HOW), positive=text, cfg=1.0, **how)[1]

    toward, away = alone(positive, CONTEXT_NOISE), alone(negative, NOISE)
    assert relative(away, alone(negative, CONTEXT_NOISE)) > 10 * CLOSE
    adaptor.model.config = replace(adaptor.model.config, context_noise=CONTEXT_NOISE)
    out = sample(guided, positive=positive, negative=negative, cfg=4.0, **how)[1]
    assert relative(out, away + 4.0 * (toward - away)) <= CLOSE


def test_under_the_noise_of_the_positive_side_it_is_as_without(
    model: ModelPatcher, adaptor: ModelPatcher, guided: ModelPatcher, sample: Sampler
) -> None:
    without = sample(bind(model, adaptor, **HOW), 4)
    assert relative(sample(bind(model, adaptor, history_noise=CONTEXT_NOISE, **HOW), 4), without) <= CLOSE
    assert relative(sample(guided, 4), without) > 10 * CLOSE


def test_a_first_frame_and_a_clip_without_guidance_are_as_without(
    model: ModelPatcher, adaptor: ModelPatcher, guided: ModelPatcher, sample: Sampler
) -> None:
    without = bind(model, adaptor, **HOW)
    assert torch.equal(sample(guided, 3)[:1], sample(without, 3)[:1])
    assert torch.equal(sample(guided, 3, cfg=1.0), sample(without, 3, cfg=1.0))
    together = {"order": "together"}
    assert torch.equal(
        sample(bind(model, adaptor, history_noise=NOISE, **together), 3), sample(bind(model, adaptor, **together), 3)
    )


def test_each_side_is_shown_every_finished_frame_once_at_its_own_noise(guided: ModelPatcher, sample: Sampler) -> None:
    counted, shown = guided.clone(), []

    def watch(apply: Callable, given: dict) -> Tensor:
        sigma = float(given["timestep"][0])
        if sigma in (pytest.approx(CONTEXT_NOISE), pytest.approx(NOISE)):
            shown.append((round(sigma, 3), tuple(given["cond_or_uncond"])))
        return apply(given["input"], given["timestep"], **given["c"])

    counted.set_model_unet_function_wrapper(watch)
    sample(counted, 3)
    assert shown == [(CONTEXT_NOISE, (0,)), (NOISE, (1,))] * 2


def test_a_clip_that_is_extended_equals_the_clip_made_at_once(guided: ModelPatcher, sample: Sampler) -> None:
    noise = noise_for(5)
    once = sample(guided, noise=noise, latent=torch.zeros_like(noise))
    given = expand_latent({"samples": once[:3]}, 5, 3, keep_given=True)
    assert torch.equal(sample(guided, noise=noise, latent=given["samples"], noise_mask=given["noise_mask"]), once)


@pytest.mark.parametrize("value", [-0.1, 20.1, math.nan])
def test_noise_out_of_range_is_refused(value: float, model: ModelPatcher, adaptor: ModelPatcher) -> None:
    with pytest.raises(ValueError, match="history_noise of Apply MagicVideo must lie in 0 to 20, found"):
        bind(model, adaptor, history_noise=value)
