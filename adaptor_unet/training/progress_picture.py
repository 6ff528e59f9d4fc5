"""What a person sees of a run while it goes on: the losses so far, and the last sample clip below them.

Axes: f frames, h height, w width, 3 colours.
"""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from .contact_sheet import contact_sheet, picture
from .loss_plot import loss_plot


def progress_picture(records: Sequence[dict[str, float]], frames: Tensor | None) -> Image.Image:
    """The loss plot of ``records``; with ``frames``, f h w 3, all of them below it, as wide as it is."""
    plot = loss_plot(records)
    if frames is None:
        return plot
    sheet = picture(contact_sheet(frames))
    sheet = sheet.resize((plot.width, max(1, round(sheet.height * plot.width / sheet.width))))
    whole = Image.new("RGB", (plot.width, plot.height + sheet.height))
    whole.paste(plot, (0, 0))
    whole.paste(sheet, (0, plot.height))
    return whole
