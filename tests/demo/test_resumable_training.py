"""A stopped and resumed run ends where an uninterrupted one does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from magicvideo.demo.train.resumable_training import ResumableTraining, TrainingSettings, half_precision

SETTINGS = TrainingSettings(steps=20, rate=0.05, ema=0.9, warm_up=3)


def run(path: Path, settings: TrainingSettings = SETTINGS) -> ResumableTraining:
    torch.manual_seed(1)
    return ResumableTraining(nn.Linear(3, 1), settings, path)


def walk(training: ResumableTraining, until: int) -> None:
    while training.steps < until:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(training.steps))
        training.step((training.module(x) - x.sum(-1, keepdim=True)).square().mean())


def weights(training: ResumableTraining) -> list[torch.Tensor]:
    return [*training.module.state_dict().values(), *training.mean.state_dict().values()]


def test_a_resumed_run_ends_like_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole, first = run(tmp_path / "whole.pt"), run(tmp_path / "parts.pt")
    walk(whole, 20)
    walk(first, 11)
    first.save()
    walk(first, 14)  # lost when it is stopped, because it was not saved
    second = run(tmp_path / "parts.pt")
    assert second.steps == 11 and second.seconds >= first._seconds
    walk(second, 20)
    for one, other in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(one, other)


def test_training_learns_and_the_mean_follows(tmp_path: Path) -> None:
    training = run(tmp_path / "state.pt")
    start = training.mean.weight.clone()
    walk(training, 20)
    goal = torch.ones(1, 3)
    assert (training.module.weight - goal).norm() < 0.7 * (start - goal).norm()
    assert (training.mean.weight - goal).norm() < (start - goal).norm()
    assert not torch.equal(training.mean.weight, training.module.weight)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [SETTINGS.rate_at(step) for step in range(21)]
    assert rates[0] == pytest.approx(0.05 / 3) and rates[0] < rates[1] < rates[2]
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[20] == pytest.approx(0)


def test_until_the_rate_falls_more_steps_change_nothing() -> None:
    short, long = (replace(SETTINGS, steps=steps, fall=0.3) for steps in (20, 200))
    assert [short.rate_at(step) for step in range(15)] == [long.rate_at(step) for step in range(15)]
    assert short.rate_at(17) == pytest.approx(0.025) and short.rate_at(20) == pytest.approx(0)
    assert long.rate_at(17) == 0.05


def test_an_interrupted_save_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = run(tmp_path / "state.pt")
    walk(training, 2)
    training.save()
    walk(training, 4)

    def fail(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        training.save()
    assert run(tmp_path / "state.pt").steps == 2


def test_a_loss_that_is_no_number_stops_the_run_before_it_does_harm(tmp_path: Path) -> None:
    training = run(tmp_path / "state.pt")
    before = training.module.weight.clone()
    with pytest.raises(FloatingPointError, match="nan at step 0"):
        training.step(training.module.weight.sum() * float("nan"))
    assert torch.equal(training.module.weight, before)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": 0.0}, {"ema": 1.0}, {"warm_up": 0}, {"fall": 0.0}])
def test_settings_that_make_no_run_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        TrainingSettings(**{"steps": 20, "rate": 0.1, "ema": 0.9, "warm_up": 3} | wrong)


def test_shipped_weights_are_half_precision() -> None:
    (weight,) = half_precision([("w", torch.ones(2, 3).T.requires_grad_())]).values()
    assert weight.dtype == torch.float16 and weight.is_contiguous() and not weight.requires_grad
