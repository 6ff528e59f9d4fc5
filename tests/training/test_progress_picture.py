"""The picture of a run while it goes on."""

import numpy as np
import torch

from magicvideo.adaptor_unet.training.loss_plot import loss_plot
from magicvideo.adaptor_unet.training.progress_picture import progress_picture

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
