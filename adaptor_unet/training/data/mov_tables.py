"""How many samples the tables of an MP4 or MOV file say that there are: FFmpeg makes room for all before it reads one.

A table may say in a few bytes that a track has millions of samples of one size, which took 35 bytes of memory each.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

# Boxes that hold boxes, on the way to the tables.
OUTER = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
# Tables: of sizes, of a fragment's samples, and of rows (count, value) of times.
SIZES, FRAGMENT, ROWS = b"stsz", b"trun", (b"stts", b"ctts")
# Of old QuickTime files: boxes that lie packed in one, and in it the one with their length and zlib's bytes.
PACKED, PACKED_BYTES = b"cmov", b"cmvd"
# No more of them is looked into.
MOST_UNPACKED = 2**26
# So deep in one another FFmpeg reads boxes.
DEEPEST = 10
# Old codecs of sound have several samples in a byte, no codec has so many.
MOST_A_BYTE = 64


def too_many_samples(path: Path) -> int:
    """How many samples a table says that there are, if the file is too short for so many; else, and for others, 0."""
    length = os.path.getsize(path)
    with path.open("rb") as file:
        return next((count for count in counts(file, 0, length) if count > MOST_A_BYTE * length), 0)


def counts(file: IO[bytes], start: int, end: int, depth: int = DEEPEST) -> Iterator[int]:
    """What each table between two places of a file says, in boxes that lie no deeper in one another than ``depth``."""
    for kind, inner, behind in boxes(file, start, end):
        if kind in OUTER:
            yield from counts(file, inner, behind, depth - 1) if depth else ()
            continue
        if kind == PACKED:
            yield from packed_counts(file, inner, behind, depth - 1) if depth else ()
            continue
        file.seek(inner)
        if kind == SIZES:  # version, one size for all or 0, count
            size, count = numbers(file.read(min(12, behind - inner))[4:], 2)
            yield count if size else 0
        elif kind == FRAGMENT:  # version, count
            yield numbers(file.read(min(8, behind - inner))[4:], 1)[0]
        elif kind in ROWS:  # version, number of rows, rows
            table = file.read(behind - inner)[8:]
            yield sum(row[0] for row in struct.iter_unpack(">II", table[: len(table) // 8 * 8]))


def packed_counts(file: IO[bytes], start: int, end: int, depth: int) -> Iterator[int]:
    """As ``counts``, of packed boxes; and before it their length, for which FFmpeg makes room too."""
    for kind, inner, behind in boxes(file, start, end):
        if kind != PACKED_BYTES:
            continue
        file.seek(inner)
        raw = file.read(behind - inner)
        length = numbers(raw[:4], 1)[0]
        yield length
        try:
            tables = zlib.decompressobj().decompress(raw[4:], min(length, MOST_UNPACKED))
        except zlib.error:
            return
        yield from counts(BytesIO(tables), 0, len(tables), depth)


def boxes(file: IO[bytes], start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box, where what it holds begins, and where it ends; no further than ``end``."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        inner = start + 8
        if size == 1:  # a longer one, whose length stands behind
            size, inner = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0], inner + 8
        behind = min(start + size, end) if size else end
        if behind < inner:
            return
        yield kind, inner, behind
        start = behind


def numbers(raw: bytes, count: int) -> tuple[int, ...]:
    """Whole numbers of 32 bits; 0 where they are cut off."""
    return struct.unpack(f">{count}I", raw.ljust(4 * count, b"\0"))
