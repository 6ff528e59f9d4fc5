"""The one door through which picture files are opened: a list of formats, and a size that is looked at first.

Pillow says a file's size when it is open, which for the formats of the list allocates nothing by the file's claim; but
for WebP, whose head is therefore read here.
"""

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

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
# Of a WebP file: bytes of the container's head, of a chunk's, and those behind that hold a picture's size.
CONTAINER, CHUNK, SIZE = 12, 8, 10
ANIMATED = 0x02  # among the flags of an extended file


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


@dataclass(frozen=True)
class WebpHead:
    """What a WebP file says in its head: width and height in pixels, and whether it shows several frames."""

    width: int
    height: int
    moves: bool


def webp_head(path: Path) -> WebpHead | None:
    """The head of a WebP file; None when the file is no WebP, or ends before it says its size.

    Raises OSError when it cannot be read.
    """
    with path.open("rb") as file:
        container, chunk, told = file.read(CONTAINER), file.read(CHUNK), file.read(SIZE)
        if container[:4] != b"RIFF" or container[8:] != b"WEBP" or len(told) < SIZE:
            return None
        if chunk[:4] == b"VP8X":  # one less than width and height, in three bytes each
            width, height = (int.from_bytes(told[at : at + 3], "little") + 1 for at in (4, 7))
            file.seek(CONTAINER)
            return WebpHead(width, height, bool(told[0] & ANIMATED) and frames_in(file) != 1)
        if chunk[:4] == b"VP8L":  # likewise, in 14 bits each behind a byte
            bits = int.from_bytes(told[1:5], "little")
            return WebpHead((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, False)
        if chunk[:4] == b"VP8 ":  # 14 bits each, behind six bytes
            width, height = (int.from_bytes(told[at : at + 2], "little") & 0x3FFF for at in (6, 8))
            return WebpHead(width, height, False)
        return None


def frames_in(file: IO[bytes]) -> int:
    """How many frames an animation has, 2 for more; what lies behind the end of the file does not count."""
    found = 0
    while found < 2 and len(chunk := file.read(CHUNK)) == CHUNK:
        found += chunk[:4] == b"ANMF"
        length = int.from_bytes(chunk[4:], "little")
        file.seek(length + length % 2, 1)
    return found
