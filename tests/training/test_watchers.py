"""What is written down of a run, and how it is asked to stop."""

import errno
import json
import sys
from pathlib import Path

import pytest
import torch

from magicvideo.adaptor_unet.training import watchers
from magicvideo.adaptor_unet.training.watchers import Record, TensorBoard, Watcher, Watchers, read_records
from magicvideo.adaptor_unet.whole_file import OutputError


def test_a_resumed_record_forgets_what_will_happen_again(tmp_path: Path) -> None:
    record = Record(tmp_path, 0, 8.0)
    for step in range(1, 6):
        record.numbers(step, 9, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed in the middle of a line
    resumed = Record(tmp_path, 3, 8.0)
    resumed.numbers(4, 9, {"loss": 0.5})
    assert [(r["step"], r["loss"]) for r in read_records(tmp_path / "metrics.jsonl")] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 0.5),
    ]
    Record(tmp_path, 0, 8.0)
    assert read_records(tmp_path / "metrics.jsonl") == []


def test_numbers_of_a_run_outlive_a_disk_that_is_full_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Record(tmp_path, 0, 8.0).numbers(1, 9, {"loss": 1.0})

    def half(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text.encode()[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OutputError, match="No space left there"):
        Record(tmp_path, 1, 8.0)
    assert read_records(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]


def test_the_record_has_plot_and_samples(tmp_path: Path) -> None:
    record = Record(tmp_path, 0, 8.0)
    record.numbers(1, 2, {"loss": 1.0})
    assert not (tmp_path / "loss.png").exists()
    record.numbers(2, 2, {"loss": 1.0})
    record.clip(2, "step-2", torch.rand(2, 8, 8, 3))
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.is_file()) == [
        "loss.png",
        "metrics.jsonl",
        "step-2.png",
        "step-2.webp",
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == {"step": 1, "loss": 1.0}


def test_a_picture_that_somebody_looks_at_ends_no_run_and_a_full_disk_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, number = Record(tmp_path, 0, 8.0), errno.EACCES

    def held(*_: object) -> None:
        raise OSError(number, "not now")

    monkeypatch.setattr(watchers, "save_loss_plot", held)
    monkeypatch.setattr(watchers, "save_clip", held)
    with pytest.raises(OutputError, match="not allowed there"):  # nobody looks at what is not there
        record.numbers(1, 1, {"loss": 1.0})
    (tmp_path / "samples").mkdir()
    for old in ("loss.png", "samples/step-1.webp"):
        (tmp_path / old).touch()
    record.numbers(1, 1, {"loss": 1.0})
    record.clip(1, "step-1", torch.rand(2, 8, 8, 3))
    assert "loss.png cannot be written" in caplog.text and "step-1.webp cannot be written" in caplog.text
    number = errno.ENOSPC
    with pytest.raises(OutputError, match="No space left there"):
        record.numbers(2, 2, {"loss": 1.0})


def test_tensorboard_says_what_to_install_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoard(tmp_path, 8.0)


def test_tensorboard_gets_numbers_and_frames(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 8.0)
    board.numbers(1, 9, {"loss": 0.25})
    board.clip(1, "step-1", torch.rand(3, 8, 8, 3))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [0.25]
    assert events.Images("sample")[0].width == 24


def test_one_watcher_that_wants_to_stop_stops_all() -> None:
    class Stops(Watcher):
        def stop(self) -> bool:
            return True

    assert not Watchers([]).stop()
    assert Watchers([Record.__new__(Record), Stops()]).stop()
