"""A video file, read frame by frame through PyAV, and when each frame of it is shown.

Axes: h height, w width.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from torch import Tensor

from .clip_files import ClipFileError
from .framing import MOST_PIXELS
from .mov_tables import too_many_samples
from .picture_door import LargePictureError, check_pixels
from .shot_cuts import cuts_of
from .video_layers import why_left_out
from .video_picture import upright_picture

# No playlists: those would open other files and addresses.
READ_AS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,m4v,gif,asf,flv,ogg"

# Containers that note for each frame when it is shown.
NOTED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "gif")

# FFmpeg's own decoders of these leave out what is transparent; libvpx's do not.
SEE_THROUGH = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# As a decoder's options: without it FFmpeg fills damaged places with what it guesses.
NO_GUESSES = {"err_detect": "explode"}

# Key frames that are tried, backwards, as the way to a frame.
ENTRIES = 3


class DecodingError(Exception):
    """Damage found while decoding."""


class VideoFile:
    """The frames of a file and when they are shown.

    The times come from the packets where the container notes them, which decodes nothing; other files, such as AVI and
    MPEG, are decoded once to find them.  Reading begins at the key frame before the wanted one, in those others at the
    start of the file.

    ``times`` count in seconds from the first frame; the last one goes at ``end``.  Raises ClipFileError when the file
    has no picture or cannot be read.  Damage in a file whose times are noted shows only when the damaged part is
    wanted.
    """

    def __init__(self, path: Path, most_pixels: int = MOST_PIXELS) -> None:
        self.path, self.most_pixels = path, most_pixels
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
            aspect, decoder = pixel_aspect(container, stream), self._decoder(stream)
            for time, same in groupby(times):
                place = bisect_left(self.times, time)
                key = self._keys[bisect_right(self._keys, place) - 1]
                try:
                    frame = None if at < key else picked(frames, place)
                except DecodingError as error:
                    if len(self._keys) == 1:
                        raise self._damaged(place, str(error)) from error
                    frame = None
                if frame is None:
                    frame, frames = self._entered(container, stream, decoder, place)
                check_pixels(max(1, round(frame.width * aspect)), frame.height, self.most_pixels)
                if why := why_left_out(stream.codec_context.codec_tag, stream.codec_context.extradata, frame):
                    raise ClipFileError(self.path, why)
                at, picture = place, upright_picture(frame, aspect)
                yield from (picture for _ in same)

    def cuts(self, looking: Callable[[], None]) -> tuple[int, ...]:
        """The places among ``times`` of the frames with which a new shot begins; damage is passed over here."""
        places: list[int] = []

        def decoded() -> Iterator[av.VideoFrame]:
            with self._opened() as (container, stream):
                stream.thread_type = "AUTO"
                for count, frame in enumerate(whole_frames(container, stream)):
                    place = bisect_left(self._stamps, frame.pts) if self._noted and frame.pts is not None else count
                    places.append(place)
                    yield frame

        found = {places[cut] for cut in cuts_of(decoded(), looking)}
        return tuple(sorted(place for place in found if 0 < place < len(self.times)))

    def _entered(
        self, container: InputContainer, stream: VideoStream, decoder: VideoCodecContext, place: int
    ) -> tuple[av.VideoFrame, Iterator[tuple[int, av.VideoFrame]]]:
        """The frame at ``place`` and those that follow, the file entered at the key frame before it.

        That may fail in a sound file: some note a key frame's time of decoding, so that the way in lands behind it, and
        in some the frames after a key frame name frames in front of it, which they do not need.  So a key frame or two
        earlier is tried before the file counts as damaged.
        """
        keys = self._keys[: bisect_right(self._keys, place)]
        found = "a frame is missing"
        for entry in reversed(keys[-ENTRIES:]):
            if len(self._keys) > 1:
                container.seek(self._stamps[entry], stream=stream)
                decoder.flush_buffers()
            frames = self._placed(container, stream, decoder, keys[-1])
            try:
                frame = picked(frames, place)
            except DecodingError as error:
                found = str(error)
                continue
            if frame is not None:
                return frame, frames
        raise self._damaged(place, found)

    def _damaged(self, place: int, found: str) -> ClipFileError:
        return ClipFileError(
            self.path,
            f"is damaged near {self.times[place]:.2f} seconds ({found}); if players show it all the same, convert it "
            "once more",
        )

    def _decoder(self, stream: VideoStream) -> VideoCodecContext:
        """The stream's own, or one that sees what is transparent.  Raises ClipFileError where there is none."""
        name = SEE_THROUGH.get(stream.codec_context.name)
        told = {key.lower(): value for key, value in stream.metadata.items()}
        if name is None or told.get("alpha_mode") != "1":
            return stream.codec_context
        try:
            decoder = av.CodecContext.create(name, "r")
        except ValueError as error:
            raise ClipFileError(
                self.path, f"is transparent, which this PyAV cannot read without {name}; put it on a background first"
            ) from error
        decoder.options = {"max_pixels": str(self.most_pixels)}
        return decoder

    def _placed(
        self, container: InputContainer, stream: VideoStream, decoder: VideoCodecContext, key: int
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Each decoded frame with its place among ``times``: by its stamp where those are noted, else by counting.

        Raises DecodingError at the first damage that is not shown before the ``key`` frame; what is shown before it may
        lack the frames that it is made from.
        """
        count = 0
        for packet in container.demux(stream):
            try:
                decoded = decoder.decode(packet)
            except av.error.InvalidDataError as error:
                if self._noted and packet.pts is not None and packet.pts < self._stamps[key]:
                    continue
                raise DecodingError(error.strerror) from error
            for frame in decoded:
                place, count = (bisect_left(self._stamps, frame.pts) if self._noted else count), count + 1
                if frame.is_corrupt and place >= key:
                    raise DecodingError("a frame is marked as damaged")
                if not self._noted or self._stamps[place : place + 1] == (frame.pts,):
                    yield place, frame

    def _opened(self) -> AbstractContextManager[tuple[InputContainer, VideoStream]]:
        return opened_video(self.path, self.most_pixels)


@contextmanager
def opened_video(path: Path, most_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first stream of pictures; whatever PyAV finds wrong, then or later, is a ClipFileError."""
    try:
        if count := too_many_samples(path):
            raise ClipFileError(path, f"is damaged: it says that it has {count} samples, more than it has room for")
    except OSError as error:
        raise ClipFileError(path, f"cannot be read as a video ({error.strerror})") from error
    try:
        # Tags in old encodings are of no interest.  The prefix keeps a name with a colon from being an address.
        # The decoder's limit stands before it allocates, also while FFmpeg probes the file.
        most = {"max_pixels": str(most_pixels)}
        with av.open(
            f"file:{path}",
            metadata_errors="replace",
            options=most,
            container_options={"format_whitelist": READ_AS, "protocol_whitelist": "file"},
        ) as container:
            stream = moving_pictures(path, container)
            check_pixels(*announced_size(path, stream, most_pixels), most_pixels)
            stream.codec_context.options = NO_GUESSES | most
            # Threads over frames would tell of damage too early, before the frames in front of it are out.
            stream.thread_type = "SLICE"
            yield container, stream
    except LargePictureError as error:
        raise ClipFileError(path, str(error)) from error
    except av.FFmpegError as error:
        raise ClipFileError(path, f"cannot be read as a video ({error.strerror})") from error


def video_size(path: Path) -> tuple[int, int]:
    """Width and height of the pictures as they are coded.  Raises ClipFileError."""
    with opened_video(path, MOST_PIXELS) as (_, stream):
        return stream.codec_context.width, stream.codec_context.height


def whole_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """All frames of a file that can be decoded, as the file codes them."""
    for packet in container.demux(stream):
        try:
            yield from stream.codec_context.decode(packet)
        except av.error.InvalidDataError:
            continue


def moving_pictures(path: Path, container: InputContainer) -> VideoStream:
    """The first stream of pictures that is no cover of a record.  Raises ClipFileError where there is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise ClipFileError(path, "holds sound but no picture" if container.streams.audio else "holds no picture")


def announced_size(path: Path, stream: VideoStream, most_pixels: int) -> tuple[int, int]:
    """Width and height of the pictures, in pixels, before any is decoded.

    Raises ClipFileError where FFmpeg gives none, as for a picture that is larger than it was allowed to allocate.
    """
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width or not height:
        raise ClipFileError(path, f"has no size, or one of more than {most_pixels / 1e6:.0f} million pixels")
    return width, height


def picked(frames: Iterator[tuple[int, av.VideoFrame]], place: int) -> av.VideoFrame | None:
    """The frame at ``place``, the ones in front of it passed over; None when it does not come."""
    at, frame = next(((at, frame) for at, frame in frames if at >= place), (None, None))
    return frame if at == place else None


def pixel_aspect(container: InputContainer, stream: VideoStream) -> float:
    """A pixel's width by its height.  What a GIF says of it is heeded by no viewer, and often wrong."""
    return 1.0 if container.format.name == "gif" else float(stream.sample_aspect_ratio or 1)


@dataclass(frozen=True)
class VideoTimes:
    """When the frames of a video are shown, in the stream's units.

    ``stamps``, ascending: when each is first shown.  ``keys``: the places among them where decoding can begin, the
    first one included.  ``end``: when the last frame goes.
    """

    stamps: tuple[int, ...]
    keys: tuple[int, ...]
    end: int


def noted_times(container: InputContainer, stream: VideoStream) -> VideoTimes | None:
    """When frames are shown, from the packets alone; None when the container does not note it, or notes nonsense."""
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
    """When frames are shown, from decoding all of them, in the order in which they are shown; None when there is none.

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
    """When the last frame goes: after its own ``duration``, else it stays as long as the one before it."""
    before = stamps[-1] - stamps[-2] if len(stamps) > 1 else round(one_interval(stream))
    return stamps[-1] + (duration or before)


def one_interval(stream: VideoStream) -> float:
    """The stream's units from frame to frame, by the file's frame rate."""
    rate = stream.average_rate or stream.guessed_rate or 25
    return float(1 / (rate * stream.time_base))
