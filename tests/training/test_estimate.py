"""How long a run takes is foretold from a few timed passes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from toy import FRAMES, Told, toy_run

from magicvideo.adaptor_unet.training import estimate
from magicvideo.adaptor_unet.training.estimate import TimedPass, Work, about, timed
from magicvideo.adaptor_unet.training.loop import is_due
from magicvideo.adaptor_unet.training.settings import TrainingSettings

SETTINGS = TrainingSettings(steps=100, batch=2, sample_steps=20, checkpointing=False)
WORK = Work(SETTINGS, frames=16, held_out=3, steps=100, clips=2, validations=3, samples=2)


def test_a_pass_takes_time_for_itself_and_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now: Iterator[float] = iter([10.0, 13.0, 20.0, 32.0])  # 3 seconds for one row, 12 for four
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(now))
    rows: list[int] = []
    took = timed(rows.append)
    assert rows == [1, 1, 4] and took == TimedPass(itself=0.0, row=3.0)
    assert TimedPass(1.0, 2.0).seconds(3, area=0.5) == 4.0


def test_what_is_left_of_a_run_by_hand() -> None:
    took = TimedPass(1.0, 0.5)
    assert WORK.training(took) == pytest.approx(100 * 2 * 2.3 * (1 + 0.5 * 32))
    assert WORK.validation(took) == 3 * 3 * 4 * ((1 + 0.5 * 16) + (1 + 0.5 * 32))
    assert WORK.sampling(took) == 2 * 16 * 21 * (1 + 0.5 * 2)
    together = replace(WORK, settings=replace(SETTINGS, frame_noise_levels="one_a_clip", checkpointing=True))
    assert together.training(took) == pytest.approx(100 * 2 * 3.3 * (1 + 0.5 * 16))
    assert together.sampling(took) == 2 * 20 * (1 + 0.5 * 32)


def test_it_says_what_would_be_shorter() -> None:
    told = WORK.told(TimedPass(0.0, 0.1), (64, 64))
    assert told == (
        "About 30 min for 100 steps; at 256x256 about 7 min; validate_every 0 saves about 3 min; "
        "sample_every 0 saves about 2 min."
    )
    assert WORK.told(TimedPass(0.0, 0.0001), (32, 32)) == "Less than a minute for 100 steps."
    assert [about(seconds) for seconds in (59, 60, 3600, 7200)] == [
        "less than a minute",
        "about 1 min",
        "about 60 min",
        "about 2.0 hours",
    ]


def test_no_look_in_a_run_that_is_shorter_than_the_time_between_two() -> None:
    assert [step for step in range(8) if is_due(3, step, 7)] == [0, 3, 6, 7]
    assert not any(is_due(8, step, 7) for step in range(8))
    assert not any(is_due(0, step, 7) for step in range(8))


class Phases(Told):
    def __init__(self) -> None:
        super().__init__()
        self.phases: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def phase(self, doing: str, done: int, total: int) -> None:
        self.phases.append((doing, done, total))

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def test_every_phase_of_a_run_is_named(tmp_path: Path) -> None:
    settings = TrainingSettings(steps=2, warm_up=0, validate_every=2, sample_every=2, sample_steps=1)
    watcher = Phases()
    run = toy_run(settings, tmp_path, watcher, foretells=True, sample=lambda: None)
    run.train()
    looks = [*(("validation", place, 8) for place in range(1, 9)), ("sample clip", 0, 0)]
    steps = [("training", 0, 2), ("training", 1, 2)]
    assert watcher.phases == [("timing a pass", 0, 0), *looks, *steps, *looks, ("saving", 0, 0)]
    assert watcher.notes == ["Less than a minute for 2 steps."]
    assert len(run.clips.train[0].latents) == FRAMES
