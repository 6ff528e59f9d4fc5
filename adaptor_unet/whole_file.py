"""The one door for what is written: files that are there whole or not at all, and a sentence when that cannot be.

``content_name`` tells afterwards whether tensors are still those that were written.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

ROOM = "No space left there", "Make room, or choose another place."
RIGHTS = "writing is not allowed there", "Choose another place, or allow it."
IN_THE_WAY = "a file stands where a folder is needed", "Choose another place, or move that file."
# By the system's number: why something cannot be written, and what to do.
REASONS = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
    errno.ENOTDIR: IN_THE_WAY,
    errno.EEXIST: IN_THE_WAY,
    errno.EISDIR: ("that is a folder", "Choose another name."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one."),
}
BYTES_AT_ONCE = 2**20
# Seconds between the tries to put a file in the place of one that somebody looks at.
WAITS = (0.05, 0.1, 0.2, 0.4)
# safetensors tells the number only in its text.
NUMBER_IN_TEXT = re.compile(r"os error (\d+)")
# Files that are being written, by this module and, within it, by safetensors.
UNFINISHED = re.compile(r"\..+\.partial|\.tmp\w{6}")


class OutputError(OSError, ValueError):
    """Something that cannot be written: says what, why and what to do.  ``errno`` is the system's number, if known."""


def unwritable(path: Path, error: Exception) -> OutputError:
    """The sentence for a path that the system refused to write to."""
    found = NUMBER_IN_TEXT.search(str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    told = getattr(error, "strerror", None) or str(error)
    reason, remedy = REASONS.get(number, (told, "Choose another place."))
    made = OutputError(f"{path} cannot be written: {reason}. {remedy}")
    made.errno = number
    return made


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Stands around whatever writes to ``path``; raises OutputError in place of the system's own errors."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error


def made_folder(folder: Path) -> Path:
    """The folder, made with all above it.  Raises OutputError."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def replaced(partial: Path, path: Path) -> None:
    """``os.replace``, tried several times: on Windows a program that looks at the old file keeps it for a moment."""
    for seconds in WAITS:
        try:
            os.replace(partial, path)
            return
        except PermissionError:
            time.sleep(seconds)
    os.replace(partial, path)


@contextmanager
def written_whole(path: Path, move: Callable[[Path, Path], object] = replaced) -> Iterator[Path]:
    """A name to write to, in the folder of ``path``, which is made; the file moves to ``path`` when nothing failed.

    Raises OutputError when the system refuses; but ``move`` may refuse a file that is there with FileExistsError.
    """
    made_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with writing(path):
            yield partial
        try:
            move(partial, path)
        except FileExistsError:
            raise
        except OSError as error:
            raise unwritable(path, error) from error
    finally:
        removed(partial)


def removed(path: Path) -> None:
    """Removes a file that is of no use any more, if it is there; logs it when that is refused, and raises nothing."""
    if not os.path.lexists(path):
        return
    try:
        path.unlink()
    except OSError as error:
        logger.warning("%s is of no use any more and cannot be removed: %s", path, error)


def remove_unfinished(folder: Path) -> None:
    """Removes files that a process which was killed had begun to write into a folder, where nobody writes now."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if UNFINISHED.fullmatch(path.name):
            removed(path)


def check_writable(path: Path) -> None:
    """Raises OutputError when a file cannot be written at ``path``; makes its folder and leaves ``path`` as it is."""
    if os.path.isdir(path):
        raise unwritable(path, IsADirectoryError(errno.EISDIR, "is a folder"))
    with written_whole(path, lambda partial, path: None) as partial:
        partial.write_bytes(b"")


def save_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str] | None = None,
    move: Callable[[Path, Path], object] = replaced,
    check: Callable[[Path], None] | None = None,
) -> None:
    """A safetensors file of tensors on any device and in any layout.

    ``check`` is called with the written file before it moves to ``path``, and may raise to leave nothing there.
    """
    with written_whole(path, move) as partial:
        # safetensors gives its files to nobody else; whoever may read other new files here may read this one.
        partial.touch()
        mode = partial.stat().st_mode
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
        partial.chmod(mode)
        if check is not None:
            check(partial)


def state_of_file(path: Path) -> tuple[int, int, int]:
    """What tells one state of a file from another without reading it: its size, and when content and entry changed.

    The last one tells of a change that keeps size and time, as a copy with its old times does.  Raises OSError.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_hash(path: Path) -> str:
    """A name that is equal for files of equal bytes: 40 hexadecimal digits.  Raises OSError when it cannot be read."""
    digest = blake2b(digest_size=20)
    with path.open("rb") as file:
        while piece := file.read(BYTES_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def content_name(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A name that is equal for equal tensors, of any shape and on any device: every value counts, none is left out.

    Hexadecimal digits, of names, dtypes, shapes and all bytes, in order.
    """
    digest = blake2b(digest_size=20)
    for name, tensor in tensors:
        told = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "surrogatepass")
        digest.update(len(told).to_bytes(8, "big") + told)
        digest.update(save({"values": tensor.detach().cpu().contiguous()}))  # NumPy does not know all dtypes
    return digest.hexdigest()


def check_content(told: str | None, tensors: dict[str, Tensor]) -> None:
    """Raises ValueError when tensors are not those that ``content_name`` gave this name; files of before have none."""
    if told not in (None, content_name(sorted(tensors.items()))):
        raise ValueError("its values are not those that were written")
