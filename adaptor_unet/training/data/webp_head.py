"""What a WebP file says of itself in its head: Pillow's decoder makes room for all of its pixels before one can ask."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Bytes of the container's head, of a chunk's, and those behind that hold a picture's size.
CONTAINER, CHUNK, SIZE = 12, 8, 10
ANIMATED = 0x02  # among the flags of an extended file


@dataclass(frozen=True)
class WebpHead:
    """Width and height of the canvas, and whether several frames are shown on it."""

    width: int
    height: int
    moves: bool


def webp_head(path: Path) -> WebpHead | None:
    """None when the file is no WebP, or ends before it says its size.  Raises OSError when it cannot be read."""
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
    """Frames of an animation, 2 for more; what lies behind the end of the file does not count."""
    found = 0
    while found < 2 and len(chunk := file.read(CHUNK)) == CHUNK:
        found += chunk[:4] == b"ANMF"
        length = int.from_bytes(chunk[4:], "little")
        file.seek(length + length % 2, 1)
    return found
