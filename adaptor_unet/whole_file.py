"""Files that are there whole or not at all, whatever fails while they are written."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


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


def save_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str] | None = None,
    move: Callable[[Path, Path], object] = os.replace,
    check: Callable[[Path], None] | None = None,
) -> None:
    """A safetensors file of tensors on any device and in any layout.

    ``check`` is called with the written file before it moves to ``path``, and may raise to leave nothing there.
    """
    with written_whole(path, move) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
        if check is not None:
            check(partial)
