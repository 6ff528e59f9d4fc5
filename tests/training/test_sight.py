"""What a person sees of a run: numbers, the plot, sample clips."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

from magicvideo.adaptor_unet.training.contact_sheet import contact_sheet, save_clip
from magicvideo.adaptor_unet.training.loss_plot import COLOURS, loss_plot, span, ticks
from magicvideo.adaptor_unet.training.processes import accelerator
from magicvideo.adaptor_unet.training.record import Record, TensorBoard, read_records
from magicvideo.adaptor_unet.training.terminal import Terminal
from magicvideo.adaptor_unet.training.watch import Smoothed, Watchers


def colours_in(picture: Image.Image) -> set[str]:
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in picture.getcolors(100_000)}


def test_the_plot_has_a_panel_for_each_loss_there_is() -> None:
    training = [{"step": step, "loss": 1 / step} for step in range(1, 50)]
    losses = {"val_high": 0.5, "val_low": 0.1, "val_given_high": 0.4, "val_given_low": 0.1}
    validation = [{"step": step, **losses} for step in (0, 25, 50)]
    alone, both = loss_plot(training), loss_plot(training + validation)
    assert both.height == 5 * alone.height
    assert COLOURS["val_high"] not in colours_in(alone)
    assert set(COLOURS.values()) <= colours_in(both)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"step": 0, "val_high": 0.5, "val_low": 0.1}],
        [{"step": 1, "loss": 0.3}],
        [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 0.0}],
        [{"step": step, "loss": 5.0} for step in range(3)],
    ],
)
def test_the_plot_of_a_run_that_has_hardly_begun_is_drawn_too(records: list[dict[str, float]]) -> None:
    assert loss_plot(records).width == 960


def test_a_falling_loss_is_drawn_falling() -> None:
    picture = loss_plot([{"step": step, "val_high": 1 - step / 100} for step in range(0, 101, 10)])
    wanted = tuple(int(COLOURS["val_high"][i : i + 2], 16) for i in (1, 3, 5))

    def height_at(x: int) -> float:
        rows = [y for y in range(30, picture.height) if picture.getpixel((x, y)) == wanted]
        return sum(rows) / len(rows)

    assert height_at(150) < height_at(500) < height_at(850)  # rows count downwards


def test_axes_have_a_few_round_numbers_and_wild_values_do_not_squeeze_the_rest() -> None:
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0.0301, 0.0338) == pytest.approx([0.031, 0.032, 0.033])
    assert span([1.0] * 500 + [1.5] * 500 + [900.0])[1] < 2


def test_a_contact_sheet_reads_like_a_page() -> None:
    frames = torch.linspace(0, 0.9, 10).reshape(10, 1, 1, 1).expand(10, 6, 8, 3)
    sheet = contact_sheet(frames, columns=4)
    assert sheet.shape == (3 * 10, 4 * 12, 3)
    middles = sheet[5::10, 6::12, 0].flatten()
    torch.testing.assert_close(middles[:10], frames[:, 0, 0, 0])
    assert (middles[10:] == 1).all()


def test_a_small_clip_is_written_large_with_all_its_frames_and_its_rate(tmp_path: Path) -> None:
    frames = torch.zeros(5, 32, 48, 3)
    frames[:, :, :24] = 1
    frames[torch.arange(5), torch.arange(5) * 3 + 10, 40] = 1  # equal frames would be written as one
    save_clip(frames, 8.0, tmp_path / "샘플" / "a.webp")
    with Image.open(tmp_path / "샘플" / "a.webp") as clip:
        assert clip.n_frames == 5
        assert clip.size == (240, 160)
        shown = [frame.convert("RGB").getpixel((119, 5)) for frame in ImageSequence.Iterator(clip)]
        assert clip.info["duration"] == 125
        assert shown == [(255, 255, 255)] * 5  # clean edges: the last white column stays white
    with Image.open(tmp_path / "샘플" / "a.png") as sheet:
        assert sheet.height == 5 * (32 + 4)


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


def test_the_record_has_plot_and_samples(tmp_path: Path) -> None:
    record = Record(tmp_path, 0, 8.0, plot_every=2)
    record.numbers(1, 9, {"loss": 1.0})
    assert not (tmp_path / "loss.png").exists()
    record.numbers(2, 9, {"loss": 1.0})
    record.clip(2, "step-2", torch.rand(2, 8, 8, 3))
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.is_file()) == [
        "loss.png",
        "metrics.jsonl",
        "step-2.png",
        "step-2.webp",
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == {"step": 1, "loss": 1.0}


def test_tensorboard_says_what_to_install_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoard(tmp_path, 8.0)


def test_without_accelerate_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match="Training needs accelerate: run `pip install accelerate`"):
        accelerator(cpu=True)


def test_tensorboard_gets_numbers_and_frames(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 8.0)
    board.numbers(1, 9, {"loss": 0.25})
    board.clip(1, "step-1", torch.rand(3, 8, 8, 3))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [0.25]
    assert events.Images("sample")[0].width == 24


def test_the_first_interrupt_asks_and_the_second_stops() -> None:
    terminal = Terminal(steps=5, done=0)
    try:
        assert not terminal.stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert terminal.stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        terminal.close()


def test_a_running_mean_starts_at_the_first_value_and_passes_over_no_numbers() -> None:
    mean = Smoothed(0.9)
    assert mean.add(2.0) == pytest.approx(2.0)
    assert mean.add(float("nan")) == pytest.approx(2.0)
    assert mean.add(4.0) == pytest.approx((0.9 * 2 + 4) / 1.9)


def test_one_watcher_that_wants_to_stop_stops_all() -> None:
    class Stops:
        def stop(self) -> bool:
            return True

    assert not Watchers([]).stop()
    assert Watchers([Record.__new__(Record), Stops()]).stop()
