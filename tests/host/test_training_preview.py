"""What a training node shows on itself while it trains."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from magicvideo.adaptor_unet.training.progress_pictures import progress_picture
from magicvideo.adaptor_unet.training.watchers import Record, Watchers
from magicvideo.trainer.preview_watch import SECONDS_BETWEEN_LOOKS, PreviewWatch


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, 0, 8.0)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    monkeypatch.setattr(PreviewWatch, "preview", lambda _, picture: pictures.append(picture))
    return pictures


@pytest.fixture
def run(record: Record) -> Watchers:
    return Watchers([record, PreviewWatch(10, record)])


def test_the_losses_are_shown_from_the_first_step_on(
    run: Watchers, record: Record, shown: list[Image.Image], clock: Clock
) -> None:
    for step in (1, 2, 3):
        run.numbers(step, 10, {"loss": 1 / step})
        clock.now += SECONDS_BETWEEN_LOOKS
        assert np.array_equal(shown[-1], progress_picture(record.records, None))
    assert len(shown) == 3 and not np.array_equal(shown[1], shown[2])


def test_quick_steps_are_not_drawn_one_by_one(run: Watchers, shown: list[Image.Image], clock: Clock) -> None:
    for step in range(1, 11):
        run.numbers(step, 10, {"loss": 1 / step})
        clock.now += SECONDS_BETWEEN_LOOKS / 4
    assert len(shown) == 3


def test_a_sample_clip_is_shown_at_once_and_stays(
    run: Watchers, record: Record, shown: list[Image.Image], clock: Clock
) -> None:
    run.numbers(1, 10, {"loss": 1.0})
    frames = torch.rand(4, 8, 8, 3)
    run.clip(1, "step-1", frames)
    assert np.array_equal(shown[-1], progress_picture(record.records, frames))
    clock.now += SECONDS_BETWEEN_LOOKS
    run.numbers(2, 10, {"loss": 0.5})
    assert len(shown) == 3 and np.array_equal(shown[-1], progress_picture(record.records, frames))
