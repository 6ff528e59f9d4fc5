"""The one door through which picture files are opened: a list of formats, and a size that is looked at first.

Pillow says a file's size when it is open, which for the formats of the list allocates nothing by the file's claim; but
for WebP, whose head is therefore read here.
"""

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from .webp_head import webp_head

# Pillow goes by what is in a file, not by its name, and some of its formats start other programs: EPS starts
# Ghostscript.  These are decoded inside this process.
READ_AS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")

# Pillow raises all of these for damaged files.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


class LargePictureError(ValueError):
    """A picture of more pixels than anybody asked for; nothing was allocated for it."""


@contextmanager
def open_picture(path: Path, most_pixels: int) -> Iterator[Image.Image]:
    """An open picture of at most so many pixels, of which nothing is decoded yet.

    Raises LargePictureError, and, then or later, whatever else is in ``DAMAGE``.
    """
    if head := webp_head(path):
        check_pixels(head.width, head.height, most_pixels)
    Image.init()
    with Image.open(path, formats=[name for name in READ_AS if name in Image.OPEN]) as picture:
        check_pixels(*picture.size, most_pixels)
        yield picture


def is_animated(path: Path) -> bool:
    """Whether a picture file holds several frames to be shown one after the other.  Raises what is in ``DAMAGE``."""
    if head := webp_head(path):
        return head.moves
    with open_picture(path, sys.maxsize) as picture:
        return getattr(picture, "is_animated", False)


def check_pixels(width: int, height: int, most: int) -> None:
    """Raises LargePictureError for more than ``most`` pixels."""
    if width * height > most:
        raise LargePictureError(
            f"is {width} x {height}, {width * height / 1e6:.0f} million pixels where {most / 1e6:.0f} are the most "
            "for the size that is trained; make it smaller"
        )
