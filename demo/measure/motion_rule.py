"""Where the thing in a clip goes, and whether it stays the same thing.

The thing is what differs from the background, and the background is the median colour of a frame. Its place is the
centroid, its way a straight line fitted through the places of all frames.

Axes: f frames, h height, w width, c colours.
"""

from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce

from magicvideo.demo.world.subjects import DIRECTIONS

# How much a pixel must differ from the background, of 255 in some colour, and how many pixels make a thing.
LEAST_DIFFERENCE, LEAST_PIXELS = 40, 20
# Of 64 pixels: a step that is off by no more is smooth, one that is off by more is a jump.
SMOOTH, JUMP = 4.0, 8.0
# A way is right when it goes more than so many pixels as asked, and so many times what it drifts across.
LEAST_TRAVEL, LEAST_RATIO = 5.0, 2.0
# Frames that a line is fitted through to tell a speed.
LEAST_WHOLE = 4
LEVELS = 4  # of each colour in a histogram


@dataclass(frozen=True)
class Way:
    """``x`` and ``y``: pixels from the first frame to the last along the fitted line; ``scatter``: root mean square of
    the distances from it, in pixels."""

    x: float
    y: float
    scatter: float

    def along(self, direction: str) -> float:
        """Pixels in a direction; negative for the opposite way."""
        dx, dy = DIRECTIONS[direction]
        return self.x * dx + self.y * dy

    def across(self, direction: str) -> float:
        """Pixels of drift to either side of a direction."""
        dx, dy = DIRECTIONS[direction]
        return abs(self.x * dy) + abs(self.y * dx)

    def is_right(self, direction: str) -> bool:
        """Whether it goes far enough in a direction, and far more so than across it."""
        return self.along(direction) > max(LEAST_TRAVEL, LEAST_RATIO * self.across(direction))


def thing(frames: np.ndarray) -> np.ndarray:
    """f h w c in 0..255 -> f h w: where a frame differs from its background."""
    background = np.median(rearrange(frames, "f h w c -> f (h w) c"), axis=1)
    difference = np.abs(frames.astype(float) - rearrange(background, "f c -> f 1 1 c"))
    return reduce(difference, "f h w c -> f h w", "max") > LEAST_DIFFERENCE


def places(frames: np.ndarray) -> np.ndarray:
    """f h w c in 0..255 -> f 2: the centroid, x and y in pixels; NaN in a frame that shows nothing."""
    shown = thing(frames)
    found = np.full((len(frames), 2), np.nan)
    for number, mask in enumerate(shown):
        rows, columns = np.nonzero(mask)
        if len(rows) >= LEAST_PIXELS:
            found[number] = columns.mean(), rows.mean()
    return found


def way(frames: np.ndarray) -> Way | None:
    """f h w c in 0..255 -> the way of the thing; None when fewer than two in three frames show one."""
    found = places(frames)
    numbers = np.flatnonzero(np.isfinite(found[:, 0]))
    if 3 * len(numbers) < 2 * len(frames) or len(numbers) < 2:
        return None
    line = np.polynomial.polynomial.polyfit(numbers, found[numbers], 1)
    apart = found[numbers] - (line[0] + numbers[:, None] * line[1])
    x, y = line[1] * (len(frames) - 1)
    return Way(float(x), float(y), float(np.sqrt((apart**2).sum(axis=1).mean())))


def whole(frames: np.ndarray) -> np.ndarray:
    """f h w c in 0..255 -> f: whether a frame shows a thing that no edge of the picture cuts off."""
    shown = thing(frames)
    cut_off = shown[:, [0, -1]].any(axis=(1, 2)) | shown[:, :, [0, -1]].any(axis=(1, 2))
    return ~cut_off & np.isfinite(places(frames)[:, 0])


def speed(frames: np.ndarray, direction: str) -> float | None:
    """f h w c in 0..255 -> pixels a frame in a direction, by the frames that show the thing whole.

    Of a thing that is cut off only a part has a centroid, so that one that comes in at an edge seems slower than it is.
    None where fewer than LEAST_WHOLE frames show it whole.
    """
    numbers = np.flatnonzero(whole(frames))
    if len(numbers) < LEAST_WHOLE:
        return None
    along = places(frames)[numbers] @ np.array(DIRECTIONS[direction], float)
    return float(np.polynomial.polynomial.polyfit(numbers, along, 1)[1])


def worst_step(frames: np.ndarray) -> float:
    """f h w c in 0..255 -> pixels: how far the worst step between two neighbouring frames is off the median step.

    Infinite where a frame shows nothing: there the thing is gone.
    """
    found = places(frames)
    if not np.isfinite(found).all():
        return float("inf")
    steps = np.diff(found, axis=0)
    return float(np.linalg.norm(steps - np.median(steps, axis=0), axis=1).max())


def turned_back(frames: np.ndarray, direction: str) -> float:
    """f h w c in 0..255 -> pixels: the most that the thing ever went back on its way in a direction."""
    found = places(frames) @ np.array(DIRECTIONS[direction], float)
    found = found[np.isfinite(found)]
    return float((np.maximum.accumulate(found) - found).max()) if len(found) else 0.0


def change_of_thing(frames: np.ndarray) -> np.ndarray:
    """f h w c in 0..255 -> f: how far the thing's colours are from those in frame 0.

    Half the sum of the differences between the two colour histograms: 0 for the same, 1 for no colour in common, also
    where there is nothing to see.
    """
    shown, numbers = thing(frames), colour_numbers(frames)
    histograms = [np.bincount(numbers[f][shown[f]], minlength=LEVELS**3) for f in range(len(frames))]
    shares = np.stack([counts / max(1, counts.sum()) for counts in histograms])
    distance = np.abs(shares - shares[0]).sum(axis=1) / 2
    return np.where(shares.sum(axis=1) > 0, distance, 1.0)


def colour_numbers(frames: np.ndarray) -> np.ndarray:
    """f h w c in 0..255 -> f h w: the bin of the colour histogram that each pixel falls into."""
    cells = (frames // (256 // LEVELS)).astype(int)
    return (cells * LEVELS ** np.arange(cells.shape[-1])).sum(axis=-1)


@dataclass(frozen=True)
class Drift:
    """What the end of a long clip is beside its beginning.

    ``sharpness``: root mean square of the differences of neighbouring pixels, as a ratio, 1 for as sharp (a soft edge
    has the same sum of differences as a hard one, and a smaller sum of squares).  ``colours``: half the sum of the
    differences between the colour histograms, 0 for the same, 1 for no colour in common.
    """

    sharpness: float
    colours: float


def drift(frames: np.ndarray, count: int = 16) -> Drift:
    """f h w c in 0..255 -> the last ``count`` frames beside the first ones."""
    ends = frames[:count], frames[-count:]
    energies = [sum(np.square(np.diff(end.astype(float), axis=axis)).mean() for axis in (1, 2)) for end in ends]
    shares = [np.bincount(colour_numbers(end).ravel(), minlength=LEVELS**3) / end[..., 0].size for end in ends]
    return Drift(float(np.sqrt(energies[1] / max(energies[0], 1e-6))), float(np.abs(shares[1] - shares[0]).sum() / 2))
