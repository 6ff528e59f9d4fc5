"""One training at a time writes into a run's folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if os.name == "nt":
    import msvcrt
else:
    import fcntl


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other trainings, of any process, out of a run's folder while the context lasts.

    By a locked file beside the folder, which the system lets go of when a process dies, however that happens.  Raises
    ValueError when another training has it, or the file cannot be made.
    """
    path = folder.with_name(f".{folder.name}.lock")
    file = opened(path)
    try:
        try:
            lock(file)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # taken away by the one that had it before
                raise OSError
        except OSError as error:
            raise ValueError(
                f"Another training writes into {folder} now. Wait for its end, or choose another output."
            ) from error
        try:
            yield
        finally:
            if os.name != "nt":  # an open file cannot be taken away there
                path.unlink(missing_ok=True)
    finally:
        file.close()


def opened(path: Path) -> IO[bytes]:
    """The lock's file, made if need be.  Raises ValueError with a sentence when it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise ValueError(
            f"Nothing can be written in {path.parent} ({error.strerror}). Choose another output."
        ) from error


def lock(file: IO[bytes]) -> None:
    """Raises OSError when another has locked the file."""
    if os.name == "nt":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
