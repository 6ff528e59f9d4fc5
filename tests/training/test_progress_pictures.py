"""What a person sees of a run: the plot, sample clips, and both in one picture while it goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from magicvideo.adaptor_unet.training.progress_pictures import (
    COLOURS,
    Smoothed,
    contact_sheet,
    loss_plot,
    progress_picture,
    save_clip,
    span,
    ticks,
)

RECORDS = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]


def test_before_the_first_sample_it_is_the_loss_plot() -> None:
    assert np.array_equal(progress_picture(RECORDS, None), loss_plot(RECORDS))


def test_the_sample_clip_lies_below_the_losses_as_wide_as_they_are_and_in_its_proportions() -> None:
    frames = torch.zeros(4, 60, 124, 3)
    frames[..., 0] = 1.0
    plot, whole = loss_plot(RECORDS), progress_picture(RECORDS, frames)
    assert np.array_equal(whole.crop((0, 0, *plot.size)), plot)
    # Four frames of 128 x 64 with their white line, side by side.
    assert whole.size == (plot.width, plot.height + plot.width * 64 // (4 * 128))
    below = np.asarray(whole)[plot.height :]
    assert ((below == (255, 0, 0)).all(-1)).mean() > 0.8


def test_it_can_be_drawn_before_there_is_any_number() -> None:
    assert progress_picture([], torch.zeros(1, 8, 8, 3)).height > progress_picture([], None).height


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
    frames = torch.linspace(0, 0.9, 18).reshape(18, 1, 1, 1).expand(18, 6, 8, 3)
    sheet = contact_sheet(frames)
    assert sheet.shape == (3 * 10, 8 * 12, 3)
    middles = sheet[5::10, 6::12, 0].flatten()
    torch.testing.assert_close(middles[:18], frames[:, 0, 0, 0])
    assert (middles[18:] == 1).all()


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


def test_a_running_mean_starts_at_the_first_value_and_passes_over_no_numbers() -> None:
    mean = Smoothed(0.9)
    assert mean.add(2.0) == pytest.approx(2.0)
    assert mean.add(float("nan")) == pytest.approx(2.0)
    assert mean.add(4.0) == pytest.approx((0.9 * 2 + 4) / 1.9)
