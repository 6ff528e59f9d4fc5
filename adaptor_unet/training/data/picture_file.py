"""Pictures, folders of pictures and animated WebP, PNG and AVIF, read by Pillow.

Axes: h height, w width.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .clip_files import ClipFileError
from .framing import MOST_PIXELS
from .picture_door import DAMAGE, LargePictureError, open_picture
from .shot_cuts import as_video, cuts_of

logger = logging.getLogger(__name__)

# The largest number of 16 bits.
DEEP = 65535
# What browsers do with an animation whose delay is missing.
SECONDS_WITHOUT_DELAY = 0.1
# By Pillow's mode: values that it would cut off at 255.
NUMBERS = {"F": "fractions", "I": "whole numbers of more than 16 bits"}


class PictureSequence:
    """Pictures, each a file of its own, as the frames of a clip."""

    def __init__(self, paths: Sequence[Path], fps: float, most_pixels: int = MOST_PIXELS) -> None:
        self.paths, self.most_pixels = tuple(paths), most_pixels
        self.times = tuple(index / fps for index in range(len(self.paths)))
        self.end = len(self.paths) / fps

    def read(self, times: Sequence[float]) -> Iterator[Tensor]:
        """The pictures of the given times, h w 3 in uint8."""
        paths = dict(zip(self.times, self.paths, strict=True))
        for time, same in groupby(times):
            with opened(paths[time], self.most_pixels) as picture:
                if (pages := getattr(picture, "n_frames", 1)) > 1:
                    logger.warning("%s holds %d pages, of which the first is taken.", paths[time], pages)
                frame = rgb(picture)
            yield from (frame for _ in same)

    def cuts(self, looking: Callable[[], None]) -> tuple[int, ...]:
        """The places among ``times`` with which a new shot begins."""
        return cuts_of(as_video(self.read(self.times)), looking)


class AnimatedPicture:
    """An animated WebP, PNG or AVIF, whose frames are shown for as long as the file says."""

    def __init__(self, path: Path, most_pixels: int = MOST_PIXELS) -> None:
        self.path, self.most_pixels = path, most_pixels
        starts = [0.0]
        with opened(path, most_pixels) as picture:
            # A PNG may have a picture in front of its animation, for those who cannot show that.
            self.first = int(bool(picture.info.get("default_image")))
            for index in range(self.first, getattr(picture, "n_frames", 1)):
                picture.seek(index)
                # Pillow knows a frame's delay only once the frame is decoded.
                picture.load()
                starts.append(starts[-1] + (picture.info.get("duration", 0) / 1000 or SECONDS_WITHOUT_DELAY))
        self.times, self.end = tuple(starts[:-1]), starts[-1]

    def read(self, times: Sequence[float]) -> Iterator[Tensor]:
        """The frames of the given times, h w 3 in uint8."""
        places = {time: index for index, time in enumerate(self.times, self.first)}
        with opened(self.path, self.most_pixels) as picture:
            for time, same in groupby(times):
                picture.seek(places[time])
                frame = rgb(picture)
                yield from (frame for _ in same)

    def cuts(self, looking: Callable[[], None]) -> tuple[int, ...]:
        """The places among ``times`` with which a new shot begins."""
        return cuts_of(as_video(self.read(self.times)), looking)


@contextmanager
def opened(path: Path, most_pixels: int) -> Iterator[Image.Image]:
    """An open picture; whatever is found wrong with it, then or later, becomes a ClipFileError."""
    try:
        with open_picture(path, most_pixels) as picture:
            yield picture
    except ClipFileError:
        raise
    except LargePictureError as error:
        raise ClipFileError(path, str(error)) from error
    except DAMAGE as error:
        raise ClipFileError(path, f"cannot be read as a picture ({error})") from error


def rgb(picture: Image.Image) -> Tensor:
    """A picture, upright, as h w 3 in uint8; what is transparent becomes white, as on a page.

    Raises ValueError for numbers of which a file does not say which is white: fractions, and whole ones past 16 bits.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F" or (picture.mode == "I" and not 0 <= picture.getextrema()[1] <= DEEP):
        raise ValueError(f"its values are {NUMBERS[picture.mode]}; save it with 8 or 16 bits a colour")
    if picture.mode.startswith("I;16") or picture.mode == "I":
        # 16 bits to 8; plain conversion would cut off whatever is above 255.
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return torch.from_numpy(numpy.array(picture.convert("RGB")))
