"""Files that are there whole or not at all, whatever fails while they are written."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path, move: Callable[[Path, Path], object] = os.replace) -> Iterator[Path]:
    """A name to write to, in the folder of ``path``, which is made; the file moves to ``path`` when nothing failed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        move(partial, path)
    finally:
        partial.unlink(missing_ok=True)
