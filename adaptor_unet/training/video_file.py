"""A video file, read frame by frame through PyAV.

Axes: h height, w width.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from .clip_error import ClipFileError
from .video_picture import upright_picture
from .video_times import decoded_times, noted_times

# No playlists: those would open other files and addresses.
READ_AS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,m4v,gif,asf,flv,ogg"


class VideoFile:
    """The frames of a file and when they are shown.

    The times come from the packets where the container notes them, which decodes nothing; other files, such as AVI and
    MPEG, are decoded once to find them.  Reading begins at the key frame before the wanted one, in those others at the
    start of the file.

    ``times`` count in seconds from the first frame; the last one goes at ``end``.  Raises ClipFileError when the file
    has no picture or cannot be read.  Damage in a file whose times are noted shows only when the damaged part is
    wanted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as (container, stream):
            shown = noted_times(container, stream)
            unit = float(stream.time_base)
        self._noted = shown is not None
        if shown is None:
            with self._opened() as (container, stream):
                shown = decoded_times(container, stream)
        if shown is None:
            raise ClipFileError(path, "holds no frame")
        self._stamps, self._keys = shown.stamps, shown.keys
        self.times = tuple((stamp - shown.stamps[0]) * unit for stamp in shown.stamps)
        self.end = (shown.end - shown.stamps[0]) * unit

    def read(self, times: Sequence[float]) -> Iterator[Tensor]:
        """The frames of the given times, which must not descend: h w 3 in uint8, upright, one at a time."""
        at, frames = -1, iter(())
        with self._opened() as (container, stream):
            aspect = float(stream.sample_aspect_ratio or 1)
            for time, same in groupby(times):
                place = bisect_left(self.times, time)
                if at < self._keys[bisect_right(self._keys, place) - 1] or at < 0:
                    frames = self._frames_before(container, stream, place)
                at, frame = next(((at, frame) for at, frame in frames if at >= place), (None, None))
                if at != place:
                    raise damage(self.path, time, "a frame is missing")
                picture = upright_picture(frame, aspect)
                yield from (picture for _ in same)

    def _frames_before(
        self, container: InputContainer, stream: VideoStream, place: int
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their places, from the last key frame that is not behind ``place``.

        Some files note a key frame's time of decoding, which is earlier than when it is shown, and the way in lands one
        key frame too late; then the one before is tried.
        """
        for key in reversed(self._keys[: bisect_right(self._keys, place)]):
            if len(self._keys) > 1:
                container.seek(self._stamps[key], stream=stream)
            frames = self._placed(container, stream)
            first = next(frames, None)
            if first is not None and first[0] <= place:
                yield first
                yield from frames
                return

    def _placed(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[int, av.VideoFrame]]:
        """Each decoded frame with its place among ``times``: by its stamp where those are noted, else by counting."""
        behind = 0.0
        try:
            for count, frame in enumerate(container.decode(stream)):
                place = bisect_left(self._stamps, frame.pts) if self._noted else count
                if frame.is_corrupt:
                    raise damage(self.path, behind, "marked as damaged")
                if not self._noted or self._stamps[place : place + 1] == (frame.pts,):
                    behind = self.times[place]
                    yield place, frame
        except av.error.InvalidDataError as error:
            raise damage(self.path, behind, error.strerror) from error

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The file and its first stream of pictures; whatever PyAV finds wrong, then or later, is a ClipFileError."""
        try:
            # Tags in old encodings are of no interest.  The prefix keeps a name with a colon from being an address.
            with av.open(
                f"file:{self.path}", metadata_errors="replace", container_options={"format_whitelist": READ_AS}
            ) as container:
                stream = moving_pictures(self.path, container)
                # Without it FFmpeg fills damaged places with what it guesses.
                stream.codec_context.options = {"err_detect": "explode"}
                # Threads over frames would tell of damage too early, before the frames in front of it are out.
                stream.thread_type = "SLICE"
                yield container, stream
        except av.FFmpegError as error:
            raise ClipFileError(self.path, f"cannot be read as a video ({error.strerror})") from error


def moving_pictures(path: Path, container: InputContainer) -> VideoStream:
    """The first stream of pictures that is no cover of a record."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise ClipFileError(path, "holds sound but no picture" if container.streams.audio else "holds no picture")


def damage(path: Path, time: float, found: str) -> ClipFileError:
    return ClipFileError(
        path, f"is damaged near {time:.2f} seconds ({found}); if players show it all the same, convert it once more"
    )
