"""An adaptor that was trained without a frame rate where there was no caption: guidance leads to the frame rate too."""

from dataclasses import replace
from types import SimpleNamespace

import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    DualCFGGuider,
    KSamplerSelect,
    Noise_RandomNoise,
    SamplerCustomAdvanced,
)
from small_host import Sampler, conditioning, trained
from torch import Tensor, nn

from magicvideo.adaptor_unet.fps_embedding import NOT_TOLD
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.negative_sides import negative_conditionings
from magicvideo.adaptor_unet.training.settings import RunSettings
from magicvideo.trainer.plans import AdaptorPlan
from measures import relative

FPS, FRAMES = 12.0, 3
POSITIVE, NEGATIVE = conditioning(1), conditioning(2)


@pytest.fixture
def adaptor(model: ModelPatcher) -> ModelPatcher:
    made = trained(fresh_adaptor(model, frames=FRAMES, fps_guidance=True), size=1.0)
    with torch.no_grad():  # so that a frame rate makes a difference that can be seen
        made.model.fps.outer.weight.mul_(30)
    return made


@pytest.fixture
def told(adaptor: ModelPatcher) -> list[float]:
    """The frame rates that the embedding is asked for."""
    seen: list[float] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.extend(inputs[0].tolist())

    adaptor.model.fps.register_forward_pre_hook(keep)
    return seen


def in_one_step(
    sample: Sampler, model: ModelPatcher, text: list, cfg: float = 1.0, negative: list = NEGATIVE
) -> Tensor:
    """What the model takes the clip for at the highest noise level."""
    return sample(model, FRAMES, cfg=cfg, steps=1, size=8, positive=text, negative=negative)


@pytest.mark.parametrize("guided", [True, False])
def test_the_negative_side_is_not_told_the_frame_rate(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, guided: bool
) -> None:
    adaptor.model.config = replace(adaptor.model.config, fps_guidance=guided)
    moving, untold = bind(model, adaptor, fps=FPS), bind(model, adaptor, fps=(NOT_TOLD if guided else FPS,))
    wanted, away = in_one_step(sample, moving, POSITIVE), in_one_step(sample, untold, NEGATIVE)
    assert relative(in_one_step(sample, moving, NEGATIVE), away) > 1e-3 or not guided, "the rate makes no difference"
    assert relative(in_one_step(sample, moving, POSITIVE, cfg=3.0), away + 3 * (wanted - away)) < 1e-4


def test_a_part_of_the_picture_keeps_its_frame_rate_on_its_own_side(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    """The host gives an area of one side to the other side too, by the same name."""
    area = nodes.ConditioningSetArea().append(conditioning(3), 32, 64, 0, 0, 1.0)[0]
    both = nodes.ConditioningCombine().combine(POSITIVE, area)[0]
    moving, untold = (bind(model, adaptor, fps=(fps,)) for fps in (FPS, NOT_TOLD))
    # Where guidance is 1 the host leaves the other side away, so it is asked for at 2 and 3.
    two, three = (in_one_step(sample, moving, both, cfg) for cfg in (2.0, 3.0))
    wanted = in_one_step(sample, moving, both)
    away = 2 * wanted - two
    assert relative(three, away + 3 * (wanted - away)) < 1e-4
    plain = in_one_step(sample, untold, NEGATIVE)
    assert relative(away[..., 4:], plain[..., 4:]) < 1e-4 < 1e-3 < relative(wanted[..., 4:], plain[..., 4:])


@pytest.mark.parametrize("order", ["together", "frame by frame"])
def test_in_both_orders_either_side_has_its_own(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, told: list[float], order: str
) -> None:
    sample(bind(model, adaptor, fps=FPS, order=order), 2 * FRAMES, cfg=3.0)
    assert set(told) == {FPS, NOT_TOLD}
    told.clear()
    sample(bind(model, adaptor, fps=FPS, order=order), 2 * FRAMES, cfg=1.0)
    assert set(told) == {FPS}


def test_clips_beside_each_other_have_it_alike(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    moving = bind(model, adaptor, fps=FPS, frames_per_clip=FRAMES)
    noise = torch.randn(2 * FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"cfg": 3.0, "steps": 1}
    both = sample(moving, noise=noise, latent=torch.zeros_like(noise), **how)
    second = sample(moving, noise=noise[FRAMES:], latent=torch.zeros_like(noise[FRAMES:]), **how)
    assert relative(both[FRAMES:], second) < 1e-4


def test_a_guider_with_three_texts_leads_away_from_its_negative_one(
    model: ModelPatcher, adaptor: ModelPatcher, told: list[float]
) -> None:
    moving = bind(model, adaptor, fps=FPS)
    guider = DualCFGGuider.execute(moving, POSITIVE, conditioning(3), NEGATIVE, 3.0, 2.0, "regular").result[0]
    sigmas = BasicScheduler.execute(moving, "normal", 1, 1.0).result[0]
    latent = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
    sampler = KSamplerSelect.execute("euler").result[0]
    with torch.inference_mode():
        SamplerCustomAdvanced.execute(Noise_RandomNoise(0), guider, sampler, sigmas, latent)
    assert sorted(told) == sorted([FPS, FPS, NOT_TOLD])


def test_an_adaptor_that_is_told_no_frame_rate_is_not_trained_for_its_guidance(model: ModelPatcher) -> None:
    settings = RunSettings.from_values({"fps_guidance": True})
    with pytest.raises(ValueError, match="has no part fps, only frame, temporal"):
        AdaptorPlan(fresh_adaptor(model, parts=("frame", "temporal")).model).check(settings)
    AdaptorPlan(fresh_adaptor(model).model).check(settings)


def test_a_part_of_a_negative_conditioning_is_negative_too() -> None:
    """As the host's context windows hand out, one to a window, where ``split_conds_to_windows`` is on."""

    def side(*names: str) -> list[dict[str, str]]:
        return [{"uuid": name} for name in names]

    # The host copies a part for an area to the side that has none for it, name and all.
    conds = {"positive": side("sky", "sea"), "negative": side("blur", "noise", "sea"), "middle_negative": side("grain")}
    negatives = negative_conditionings(SimpleNamespace(conds=conds | {"more": None}))
    for names in (("blur", "noise", "sea"), ("blur",), ("noise",), ("grain",)):
        assert side(*names) in negatives
    for names in (("sky", "sea"), ("sky",), ("sea",), ("sky", "noise")):
        assert side(*names) not in negatives
