"""The one door through which picture files are opened: a list of formats, and a size that is looked at first."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


class LargePictureError(ValueError):
    """A picture of more pixels than anybody asked for; nothing was allocated for it."""


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """An open picture, of which nothing is decoded yet.  Raises, then or later, whatever is in ``DAMAGE``."""
    Image.init()
    with Image.open(path, formats=[name for name in READ_AS if name in Image.OPEN]) as picture:
        yield picture


def check_pixels(width: int, height: int, most: int) -> None:
    """Raises LargePictureError for more than ``most`` pixels."""
    if width * height > most:
        raise LargePictureError(
            f"is {width} x {height}, {width * height / 1e6:.0f} million pixels where {most / 1e6:.0f} are the most "
            "for the size that is trained; make it smaller"
        )
