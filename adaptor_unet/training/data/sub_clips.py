"""Which frames of a clip make a training sub-clip.

As in MagicVideo: a random stretch of the clip, F frames evenly from it, and the frame rate that follows as the fps
condition.  Only arithmetic: nothing here opens a file.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor
from random import Random
from statistics import fmean, median_low

from .data_settings import DataSettings

# A file of 29.97 frames a second satisfies a range that ends at 30, and one of 30.0003 too.
SLACK = 1.01


class UnfitClipError(ValueError):
    """A clip from which no sub-clip can be taken: says what it has and what is needed."""


@dataclass(frozen=True)
class SubClip:
    """``times``: when each frame is first shown in the file, in seconds.  ``fps``: their rate, 0 for a single one."""

    times: tuple[float, ...]
    fps: float


def usual_interval(times: Sequence[float]) -> float:
    """Seconds from frame to frame, for two frames or more.

    The mean of the intervals that are about the median: rounded time stamps average out, while a pause or a dropped
    frame does not count.
    """
    intervals = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    middle = median_low(intervals)
    return fmean(interval for interval in intervals if middle / 2 <= interval <= middle * 3 / 2)


def draw_sub_clips(times: Sequence[float], end: float, settings: DataSettings, random: Random) -> Iterator[SubClip]:
    """``draws_per_clip`` sub-clips, one from each of as many equal stretches; arguments as for ``draw_sub_clip``.

    Each is drawn when it is asked for, so the caller may draw from ``random`` in between.  In a clip that is hardly
    longer than a sub-clip they may be equal.
    """
    for draw in range(settings.draws_per_clip):
        yield draw_sub_clip(times, end, settings, random, draw, settings.draws_per_clip)


def draw_within_shots(
    shots: Sequence[tuple[Sequence[float], float]], settings: DataSettings, random: Random
) -> Iterator[SubClip]:
    """As ``draw_sub_clips``, of a clip of several shots, of which each sub-clip shows one alone.

    ``shots``: the times and the end of each.  The longer a shot, the more sub-clips are taken from it; those from which
    none can be taken are left out.  Raises UnfitClipError when that is all of them.
    """
    if len(shots) == 1:
        yield from draw_sub_clips(*shots[0], settings, random)
        return
    fit, reasons = [], []
    for times, end in shots:
        try:
            draw_sub_clip(times, end, settings, Random(0))
            fit.append((times, end))
        except UnfitClipError as error:
            reasons.append((end - times[0], str(error)))
    if not fit:
        raise UnfitClipError(
            f"has {len(shots)} shots, of which the longest {max(reasons)[1]}; without within_shots, cuts do not count"
        )
    lengths = list(accumulate(end - times[0] for times, end in fit))
    taken = Counter(
        bisect_right(lengths, (draw + 0.5) / settings.draws_per_clip * lengths[-1])
        for draw in range(settings.draws_per_clip)
    )
    for place in sorted(taken):
        for draw in range(taken[place]):
            yield draw_sub_clip(*fit[place], settings, random, draw, taken[place])


def draw_sub_clip(
    times: Sequence[float], end: float, settings: DataSettings, random: Random, draw: int = 0, draws: int = 1
) -> SubClip:
    """One random sub-clip of ``settings.frames`` frames.

    ``times`` are the moments, ascending, at which the file's frames are first shown, ``end`` the moment at which the
    last one goes.  The rate is drawn first, evenly by octaves, from those that the file has: every frame, every
    second, every third.  So frames are evenly spaced and none comes twice, unless the file itself holds a frame for
    longer, as a GIF may: then what is shown at that moment is taken.  The start is random within the ``draw``-th of
    ``draws`` equal stretches.

    Raises UnfitClipError when the clip has too few frames, is too short for the fastest rate allowed, or is slower
    than the slowest.
    """
    if settings.frames == 1:
        return SubClip((times[int((draw + random.random()) / draws * len(times))],), 0.0)
    if len(times) < settings.frames:
        raise UnfitClipError(f"has {counted(len(times))}; a sub-clip needs {settings.frames}")
    interval = usual_interval(times)
    stride = draw_stride(interval, end - times[0], settings, random)
    step = interval * stride
    # Looking at the middle of an interval: a time stamp that is a little early or late does not change the frame.
    last_start = end - interval / 2 - step * (settings.frames - 1)
    starts = max(1, bisect_right(times, last_start))
    start = times[int((draw + random.random()) / draws * starts)] + interval / 2
    shown = (bisect_right(times, start + step * index) - 1 for index in range(settings.frames))
    return SubClip(tuple(times[index] for index in shown), 1 / step)


def draw_stride(interval: float, length: float, settings: DataSettings, random: Random) -> int:
    """How many of the file's intervals lie between two frames of the sub-clip; ``length`` is the clip's, in seconds."""
    least = ceil(1 / (interval * settings.fps_max * SLACK)) if settings.fps_max else 1
    slowest = floor(SLACK / (interval * settings.fps_min)) if settings.fps_min else None
    longest = floor((length - interval / 2) / (interval * (settings.frames - 1)))
    if slowest is not None and slowest < 1:
        raise UnfitClipError(
            f"has {1 / interval:.3g} frames a second, fewer than fps_min, which is {settings.fps_min:g}"
        )
    if longest < least:
        raise UnfitClipError(
            f"lasts {length:.3g} seconds; {settings.frames} frames at {1 / (interval * least):.3g} a second need "
            f"{interval * least * (settings.frames - 1):.3g}"
        )
    most = longest if slowest is None else min(longest, slowest)
    if most < least:
        raise UnfitClipError(
            f"has {1 / interval:.3g} frames a second, of which no whole part lies between fps_min "
            f"{settings.fps_min:g} and fps_max {settings.fps_max:g}"
        )
    return min(most, max(least, round(least * (most / least) ** random.random())))


def counted(frames: int) -> str:
    """A number of frames in words."""
    return "1 frame" if frames == 1 else f"{frames} frames"
