"""What a run may leave in main memory, and what it says of that when a card's memory is too short."""

import re

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from magicvideo.adaptor_unet.training.run_identity import LASTING, MAY_CHANGE
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.trainables import MovingAverage
from magicvideo.adaptor_unet.training.training_error import lower
from magicvideo.adaptor_unet.training.watchers import SAMPLE, TRAINING, VALIDATION


def averaged(offload: bool) -> tuple[nn.Parameter, MovingAverage]:
    parameter = nn.Parameter(torch.linspace(0, 1, 7))
    averages = MovingAverage({"x": parameter}, 0.9, offload)
    for step in range(3):
        parameter.data.mul_(1.3).add_(0.1)
        averages.update(step)
    return parameter, averages


def test_averages_in_main_memory_are_those_beside_the_weights() -> None:
    (parameter, averages), (_, beside) = averaged(offload=True), averaged(offload=False)
    assert torch.equal(averages.values["x"], beside.values["x"])
    before = parameter.detach().clone()
    with averages.in_place():
        assert torch.equal(parameter, beside.values["x"]) and not torch.equal(parameter, before)
    assert torch.equal(parameter, before)


def test_they_and_what_they_take_the_place_of_lie_in_main_memory() -> None:
    with FakeTensorMode():
        parameter = nn.Parameter(torch.empty(7, device="cuda:0"))
        averages = MovingAverage({"x": parameter}, 0.9, offload=True)
        averages.update(1)
        with averages.in_place():
            assert parameter.device.type == "cuda"
        assert averages.values["x"].device.type == averages._copied(parameter).device.type == "cpu"
        assert MovingAverage({"x": parameter}, 0.9).values["x"].device.type == "cuda"


def test_on_a_card_what_takes_less_there_is_named_before_smaller_clips() -> None:
    used: dict[str, object] = {}
    remedies = {"offload_activations": True, "frames_at_once": 1, "base_precision": "fp8", "offload_averages": True}
    for name, value in remedies.items():
        assert f"Go on with {name}" in lower(TRAINING, TrainingSettings(**used), card=True)
        used[name] = value
    assert "Lower frames, width or height, in a new run" in lower(TRAINING, TrainingSettings(**used), card=True)
    assert "Lower frames, width or height" in lower(TRAINING, TrainingSettings(), card=False)
    tuned = TrainingSettings(offload_activations=True, frames_at_once=1, base_tuning="full")
    assert "base_precision" not in lower(TRAINING, tuned, card=True)


def test_what_a_run_is_to_go_on_with_begins_no_other_run() -> None:
    changes = [{}, {"checkpointing": False}, {"clips_at_once": 2, "batch": 2}, {"offload_activations": True}]
    changes += [changes[-1] | {"frames_at_once": 1}, changes[-1] | {"frames_at_once": 1, "base_precision": "fp8"}]
    told = [lower(doing, TrainingSettings(**one), True) for one in changes for doing in (TRAINING, VALIDATION, SAMPLE)]
    named = {found[1] for words in told if (found := re.match(r"Go on with (\w+)", words))}
    assert named == set(MAY_CHANGE) - {"save_every", "keep", "sample_steps", "sample_cfg"}
    assert not set(MAY_CHANGE) & set(LASTING)


def test_a_base_that_is_trained_is_not_kept_in_8_bits() -> None:
    with pytest.raises(
        ValueError, match="base_precision fp8 is for a base that stays as it is, but base_tuning is full"
    ):
        TrainingSettings(base_precision="fp8", base_tuning="full")
