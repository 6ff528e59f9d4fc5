"""A name for what is in a clip's files, whatever they are called and wherever they lie."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from .cache_files import read_json, save_json
from .clip_error import ClipFileError

BYTES_AT_ONCE = 2**20


class ContentHashes:
    """Hashes of the bytes of files.

    A file whose size and time of change are those it had last time is not read again: a large set would take minutes at
    every start.  ``save`` keeps what is known in ``memory``.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known = read_json(memory)
        self._changed = False

    def of(self, paths: Sequence[Path]) -> str:
        """The name of the files' contents in this order.  Raises ClipFileError when one cannot be opened."""
        return hash_of(*(self._of_file(path) for path in paths))

    def save(self) -> None:
        if self._changed:
            save_json(self._memory, self._known)

    def _of_file(self, path: Path) -> str:
        name = str(path.absolute())
        try:
            state = path.stat()
            seen = [state.st_size, state.st_mtime_ns]
            known = self._known.get(name)
            if not isinstance(known, list) or known[:2] != seen:
                known = self._known[name] = [*seen, read_hash(path)]
                self._changed = True
        except OSError as error:
            raise ClipFileError(path, f"cannot be opened ({error.strerror})") from error
        return str(known[2])


def read_hash(path: Path) -> str:
    digest = blake2b(digest_size=20)
    with path.open("rb") as file:
        while piece := file.read(BYTES_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def hash_of(*parts: str) -> str:
    """One name for some texts; where one ends and the next begins counts."""
    digest = blake2b(digest_size=20)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
