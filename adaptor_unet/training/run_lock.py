"""One training at a time writes into a run's folder."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..whole_file import remove_unfinished

logger = logging.getLogger(__name__)

if os.name == "nt":
    import msvcrt
else:
    import fcntl

# What a system says of a file that another has locked.
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other trainings, of any process, out of a run's folder while the context lasts.

    By a locked file beside the folder, which the system lets go of when a process dies, however that happens; where a
    file system locks nothing, as some in a network, by nothing but a word in the log.  Raises ValueError when another
    training has it, or the file cannot be made.  What a training that was killed had begun to write there is removed.
    """
    path = folder.with_name(f".{folder.name}.lock")
    file = opened(path)
    try:
        if not locked(file, path):
            raise ValueError(f"Another training writes into {folder} now. Wait for its end, or choose another output.")
        try:
            remove_unfinished(folder)
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


def locked(file: IO[bytes], path: Path) -> bool:
    """Whether nobody else has locked the open file at ``path``; it is locked now, where the file system can do that."""
    try:
        if os.name == "nt":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        logger.warning(
            "%s cannot be locked (%s): see to it that no other training writes there.", path.parent, error.strerror
        )
    try:
        # It may have been taken away by the one that had it before.
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
