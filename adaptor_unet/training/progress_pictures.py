"""What a person sees of a run: the plot of its losses, and sample clips as animated pictures and contact sheets.

Axes: f frames, h height, w width, 3 colours.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..whole_file import written_whole

# A node shows a picture at a third of its width, and the words in it are to be read there.
WIDTH, PANEL, MARGIN, LEFT, WORDS, NUMBERS = 960, 360, 64, 132, 36, 32
INK, GRID, PALE = "#333333", "#dddddd", "#b9cde4"
COLOURS = {
    "loss": "#1f5fa8",
    "val_high": "#c2410c",
    "val_low": "#15803d",
    "val_given_high": "#9d174d",
    "val_given_low": "#0f766e",
}
NAMES = {
    "loss": "training loss",
    "val_high": "validation, high noise",
    "val_low": "validation, low noise",
    "val_given_high": "given finished frames, high noise",
    "val_given_low": "given finished frames, low noise",
}
# While a run goes on there is room for two panels: the loss, and the first of these that there is.
TO_WATCH = ("val_given_high", "val_high")
# Frames beside each other on a contact sheet.
COLUMNS = 8
# Small pictures are enlarged to about this.
LEAST_SIDE = 256
Points = list[tuple[float, float]]


class Smoothed:
    """A running mean of a noisy number."""

    def __init__(self, decay: float = 0.98) -> None:
        self.decay, self.value, self.weight = decay, 0.0, 0.0

    def add(self, value: float) -> float:
        """Takes the next value, unless it is not finite, and gives the mean; NaN before the first one."""
        if math.isfinite(value):
            self.value = self.decay * self.value + (1 - self.decay) * value
            self.weight = self.decay * self.weight + 1 - self.decay
        return self.value / self.weight if self.weight else math.nan


def loss_plot(records: Sequence[dict[str, float]], names: Sequence[str] = tuple(NAMES)) -> Image.Image:
    """A panel for the training loss and one for each validation loss that ``records`` hold, over the steps.

    The training loss is pale, its running mean dark.  ``names`` are those that may be shown.
    """
    series: dict[str, Points] = {
        name: [(r["step"], r[name]) for r in records if name in r and math.isfinite(r[name])] for name in names
    }
    shown = [name for name in names if series[name]] or ["loss"]
    picture = Image.new("RGB", (WIDTH, PANEL * len(shown)), "white")
    last = max([1, *(points[-1][0] for points in series.values() if points)])
    for place, name in enumerate(shown):
        draw_panel(ImageDraw.Draw(picture), place * PANEL, name, series.get(name, []), last)
    return picture


def draw_panel(draw: ImageDraw.ImageDraw, top: int, name: str, points: Points, last: float) -> None:
    """Draws one loss over the steps, with its axes and its name, from ``top`` pixels on down.

    ``points`` are step and loss, ``last`` is the last step of the axis.
    """
    font, small = ImageFont.load_default(WORDS), ImageFont.load_default(NUMBERS)
    low, high = span([y for _, y in points])
    left, right, up, down = LEFT, WIDTH - MARGIN, top + MARGIN, top + PANEL - MARGIN

    def at(x: float, y: float) -> tuple[float, float]:
        y = min(max(y, low), high)
        return left + (right - left) * x / last, down - (down - up) * (y - low) / (high - low)

    draw.text((left, up - 10), NAMES[name], fill=INK, font=font, anchor="lb")
    for tick in ticks(low, high):
        y = at(0, tick)[1]
        draw.line([(left, y), (right, y)], fill=GRID)
        draw.text((left - 12, y), f"{tick:.4g}", fill=INK, font=small, anchor="rm")
    for tick in ticks(0, last):
        x = at(tick, low)[0]
        draw.text((x, down + 12), f"{tick:.0f}", fill=INK, font=small, anchor="mt")
    draw.line([(left, up), (left, down), (right, down)], fill=INK)
    if name == "loss":
        mean = Smoothed(0.95)
        draw.line([at(*point) for point in points], fill=PALE, width=2)
        points = [(x, mean.add(y)) for x, y in points]
    if len(points) > 1:
        draw.line([at(*point) for point in points], fill=COLOURS[name], width=6)
    for x, y in map(lambda point: at(*point), points if name != "loss" else points[-1:]):
        draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=COLOURS[name])
    if points:
        draw.text((right, up - 10), f"{points[-1][1]:.3g}", fill=COLOURS[name], font=font, anchor="rb")


def span(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest number of the axis; a few wild values out of many are cut off."""
    found = sorted(values) or [0.0, 1.0]
    high = found[min(len(found) - 1, math.ceil(0.99 * len(found)))]
    margin = (high - found[0]) * 0.08 or abs(high) * 0.1 or 1.0
    return found[0] - margin, high + margin


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers from ``low`` to ``high``, so few that wide ones have room beside each other."""
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 6)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def save_loss_plot(records: Sequence[dict[str, float]], path: Path) -> None:
    """Writes ``loss_plot`` of the records as a PNG file.  Raises OutputError when it cannot be written."""
    with written_whole(path) as partial:
        loss_plot(records).save(partial, "PNG")


def contact_sheet(frames: Tensor) -> Tensor:
    """f h w 3 -> h w 3: rows of up to ``COLUMNS`` frames in reading order, with a white line between them."""
    columns = min(COLUMNS, len(frames))
    rows = math.ceil(len(frames) / columns)
    padded = torch.nn.functional.pad(frames, (0, 0, 2, 2, 2, 2), value=1.0)
    missing = rows * columns - len(frames)
    padded = torch.cat([padded, torch.ones(missing, *padded.shape[1:])])
    return rearrange(padded, "(r k) h w c -> (r h) (k w) c", k=columns)


def picture(pixels: Tensor, side: int = 0) -> Image.Image:
    """h w 3 in 0 to 1 -> a picture, enlarged with clean edges until ``side`` of its pixels come to about LEAST_SIDE."""
    image = Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    factor = max(1, LEAST_SIDE // (side or max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def save_clip(frames: Tensor, fps: float, path: Path) -> None:
    """Writes frames, f h w 3 in 0 to 1, as an animated WebP at ``path``, and a contact sheet beside it as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [picture(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, lossless=True)
    picture(contact_sheet(frames), max(frames.shape[1:3])).save(path.with_suffix(".png"))


def progress_picture(records: Sequence[dict[str, float]], frames: Tensor | None) -> Image.Image:
    """The losses of ``records`` that are to be watched; with ``frames``, f h w 3, all below them, as wide as they are.

    No more than that, so that a node, which shows it all at once, can show it large.
    """
    watched = next((name for name in TO_WATCH if any(name in record for record in records)), None)
    plot = loss_plot(records, ("loss", watched) if watched else ("loss",))
    if frames is None:
        return plot
    sheet = picture(contact_sheet(frames))
    sheet = sheet.resize((plot.width, max(1, round(sheet.height * plot.width / sheet.width))))
    whole = Image.new("RGB", (plot.width, plot.height + sheet.height))
    whole.paste(plot, (0, 0))
    whole.paste(sheet, (0, plot.height))
    return whole
