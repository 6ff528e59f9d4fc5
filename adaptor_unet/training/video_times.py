"""When each frame of a video file is shown, in the file's own units of time."""

from collections.abc import Sequence
from dataclasses import dataclass

from av.container import InputContainer
from av.video.stream import VideoStream

# Containers that note for each frame when it is shown.
NOTED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "gif")


@dataclass(frozen=True)
class VideoTimes:
    """``stamps``, ascending: when frames are first shown.  ``keys``: the places among them where decoding can begin,
    the first one included.  ``end``: when the last frame goes."""

    stamps: tuple[int, ...]
    keys: tuple[int, ...]
    end: int


def noted_times(container: InputContainer, stream: VideoStream) -> VideoTimes | None:
    """From the packets, decoding nothing; None when the container does not note them or notes nonsense."""
    if container.format.name not in NOTED:
        return None
    packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    if not packets or any(packet.pts is None for packet in packets):
        return None
    shown = sorted((packet.pts, packet.is_keyframe, packet.duration or 0) for packet in packets)
    stamps = tuple(stamp for stamp, _, _ in shown)
    if len(set(stamps)) < len(stamps):
        return None
    keys = {0, *(place for place, (_, key, _) in enumerate(shown) if key)}
    return VideoTimes(stamps, tuple(sorted(keys)), end_after(stamps, shown[-1][2], stream))


def decoded_times(container: InputContainer, stream: VideoStream) -> VideoTimes | None:
    """From the frames themselves, which come in the order in which they are shown; None when there is none.

    An AVI file may number its frames in the order of decoding, so that only the set of its stamps is right, not which
    frame has which; and some files have none.  Then the file's frame rate counts.
    """
    found = [frame.pts for frame in container.decode(stream)]
    if not found:
        return None
    stamps = tuple(sorted(set(found) - {None}))
    if len(stamps) < len(found):
        interval = one_interval(stream)
        stamps = tuple(round(place * interval) for place in range(len(found)))
    return VideoTimes(stamps, (0,), end_after(stamps, 0, stream))


def end_after(stamps: Sequence[int], duration: int, stream: VideoStream) -> int:
    """The last frame stays for its own duration, else as long as the one before it."""
    before = stamps[-1] - stamps[-2] if len(stamps) > 1 else round(one_interval(stream))
    return stamps[-1] + (duration or before)


def one_interval(stream: VideoStream) -> float:
    """Units from frame to frame by the file's frame rate."""
    rate = stream.average_rate or stream.guessed_rate or 25
    return float(1 / (rate * stream.time_base))
