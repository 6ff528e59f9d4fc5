"""Where one shot of a clip ends and the next begins, found by FFmpeg's own measure of a change of scene.

Axes: h height, w width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import av
import av.filter
from torch import Tensor

# Of 1: how much more of a picture changes at once than from frame to frame.  FFmpeg's manual names 0.3 to 0.5 as sane;
# a cut that is missed does more harm than one that is seen where there is none.
CHANGE = 0.3
# Pictures are compared at this width, where noise and grain average out.
WIDTH = 160
# And at no more than so many times that in height: a picture that is longer still is trained by nobody.
MOST_HEIGHT = 32 * WIDTH
# How many frames are looked at between two moments at which somebody may stop it.
FRAMES_AT_ONCE = 100
# In the graph a frame's stamp is its place.
PLACES = Fraction(1, 1)


def cuts_of(frames: Iterable[av.VideoFrame], looking: Callable[[], None]) -> tuple[int, ...]:
    """The places of frames with which a new shot begins, the first frame apart.

    ``looking`` is called again and again meanwhile, and may raise to stop it.
    """
    graph: av.filter.Graph | None = None
    found: list[int] = []
    for place, frame in enumerate(frames):
        if place % FRAMES_AT_ONCE == 0:
            looking()
        frame.pts, frame.time_base = place, PLACES
        if graph is None:
            graph, first = graph_for(frame), frame
        if (frame.width, frame.height, frame.format.name) != (first.width, first.height, first.format.name):
            break  # a clip of several sizes is refused, with the reason, when it is read
        graph.push(frame)
        found += pulled(graph)
    if graph is not None:
        graph.push(None)
        found += pulled(graph)
    return tuple(place for place in found if place)


def graph_for(frame: av.VideoFrame) -> av.filter.Graph:
    """A filter for frames like this one that lets those through with which a new shot begins."""
    graph = av.filter.Graph()
    buffer = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=PLACES)
    height = min(MOST_HEIGHT, max(2, round(WIDTH * frame.height / frame.width / 2) * 2))
    scaled = graph.add("scale", f"{WIDTH}:{height}:flags=area")
    graph.link_nodes(buffer, scaled, graph.add("select", rf"gt(scene\,{CHANGE})"), graph.add("buffersink")).configure()
    return graph


def pulled(graph: av.filter.Graph) -> Iterator[int]:
    """The places of the frames that have come through the filter."""
    while True:
        try:
            yield graph.pull().pts
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def as_video(pictures: Iterable[Tensor]) -> Iterator[av.VideoFrame]:
    """Pictures, h w 3 in uint8, as video frames."""
    return (av.VideoFrame.from_ndarray(picture.contiguous().numpy(), "rgb24") for picture in pictures)


def shots_of(times: Sequence[float], end: float, cuts: Sequence[int]) -> list[tuple[Sequence[float], float]]:
    """The times of each shot's frames and the moment at which its last one goes.  ``cuts``: places among ``times``."""
    bounds = [0, *cuts, len(times)]
    ends = [*(times[cut] for cut in cuts), end]
    return [(times[start:stop], at) for start, stop, at in zip(bounds, bounds[1:], ends, strict=False)]
