"""One way to read every kind of clip: the moments at which its frames are shown, and the frames of chosen moments.

Axes: h height, w width.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from .clip_files import ClipFile, ClipFileError, pictures_in
from .framing import MOST_PIXELS
from .picture_file import AnimatedPicture, PictureSequence, opened
from .video_file import VideoFile, video_size


class FrameSource(Protocol):
    """A clip that gives single frames.

    ``times`` are the moments in seconds, ascending, at which a frame is first shown; the last one goes at ``end``.
    """

    times: tuple[float, ...]
    end: float

    def read(self, times: Sequence[float]) -> Iterator[Tensor]:
        """The frames of some of ``times``, which must not descend and may repeat: h w 3, uint8, upright, RGB.

        One at a time, so that no more than one lies in memory.  Raises ClipFileError when one of them, or a frame
        that it is made from, is damaged.
        """
        ...

    def cuts(self, looking: Callable[[], None]) -> tuple[int, ...]:
        """Places among ``times`` of the frames with which a new shot begins, the first apart; decodes all of them.

        ``looking`` is called again and again meanwhile, and may raise to stop it.
        """
        ...


def open_clip(clip: ClipFile, image_fps: float, most_pixels: int = MOST_PIXELS) -> FrameSource:
    """The frames of a clip; pictures in a folder are ``image_fps`` to a second.

    Raises ClipFileError, then or when frames are read, for a file that is damaged or whose pictures have more than
    ``most_pixels``.
    """
    if clip.kind == "video":
        return VideoFile(clip.path, most_pixels)
    if clip.kind == "animation":
        return AnimatedPicture(clip.path, most_pixels)
    return PictureSequence(content_files(clip), image_fps, most_pixels)


def size_of(clip: ClipFile) -> tuple[int, int] | None:
    """Width and height of a clip's frames as the file says them, decoding nothing; None when it cannot be read."""
    try:
        if clip.kind == "video":
            return video_size(clip.path)
        with opened(content_files(clip)[0], MOST_PIXELS) as picture:
            return picture.size
    except ClipFileError:
        return None


def content_files(clip: ClipFile) -> list[Path]:
    """The files that a clip is made of, in the order of its frames."""
    return pictures_in(clip.path) if clip.kind == "pictures" else [clip.path]
