"""The small files of the cache: read back only when they are sound; and names for what is in a clip's files.

A clip's content has the same name whatever its files are called and wherever they lie.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from math import inf
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...whole_file import check_content, content_name, read_hash, state_of_file, written_whole
from .clip_files import ClipFileError, ClipSearch, in_order

# Metadata of a tensor's values, before its name.
CONTENT = "magicvideo.content."
AGAIN = "Start again: it will be made anew."


def holds_text(path: Path) -> bool:
    """Whether a file of the cache has an embedding, n d, and can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            shape = file.get_slice("text").get_shape()
            return len(shape) == 2 and all(shape)
    except (SafetensorError, OSError):
        return False


def read_metadata(path: Path) -> dict[str, str] | None:
    """What a file says of itself; None when it is not there, cut short, without tensors or no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {} if file.keys() else None
    except (SafetensorError, OSError):
        return None


def read_rates(path: Path) -> tuple[float, ...] | None:
    """The frame rate of each sub-clip in a file of latents; None when there is no such file or it is not sound."""
    try:
        with safe_open(path, framework="pt") as file:
            rates = json.loads((file.metadata() or {})["magicvideo.fps"])
            names = {str(place) for place in range(len(rates))}
            sound = names == set(file.keys()) and all(len(file.get_slice(name).get_shape()) == 4 for name in names)
            if not sound or not rates or not all(type(x) in (int, float) and 0 <= x < inf for x in rates):
                return None
            return tuple(map(float, rates))
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor, in memory of its own; raises ValueError when the file is gone or damaged since it was written.

    A file whose values have changed, or that lacks the tensor, may look sound from outside, so it is deleted for the
    next start to make it anew.

    Nodes run in inference mode, whose tensors cannot be trained on: this is none.
    """
    try:
        with torch.inference_mode(False), safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name).clone()
            told = (file.metadata() or {}).get(CONTENT + name)
        check_content(told, {name: tensor})
        return tensor
    except (SafetensorError, OSError, ValueError) as error:
        remedy = AGAIN if isinstance(error, OSError) else dropped(path)
        raise ValueError(f"{path} of the cache cannot be read ({error}). {remedy}") from error


def dropped(path: Path) -> str:
    """Deletes a damaged file, and gives a sentence that says what to do then."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return f"Delete it. {AGAIN}"
    return AGAIN


def contents(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Metadata by which ``read_tensor`` knows that tensors are as they were written."""
    return {CONTENT + name: content_name([(name, tensor)]) for name, tensor in tensors.items()}


def save_json(path: Path, content: object) -> None:
    """Writes a JSON file whole or not at all.  Raises OutputError when it cannot be written."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content), encoding="ascii")


def read_json(path: Path) -> dict:
    """A saved dictionary; an empty one when the file is not there or damaged."""
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


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
        """Writes down what is known, if that has changed.  Raises OutputError when it cannot be written."""
        if self._changed:
            save_json(self._memory, self._known)

    def _of_file(self, path: Path) -> str:
        name = str(path.absolute())
        try:
            seen = [*state_of_file(path)]
            known = self._known.get(name)
            if not isinstance(known, list) or known[:-1] != seen or type(known[-1]) is not str:
                known = self._known[name] = [*seen, read_hash(path)]
                self._changed = True
        except OSError as error:
            raise ClipFileError(path, f"cannot be opened ({error.strerror})") from error
        return str(known[-1])


def folder_state(folder: Path) -> str:
    """What tells one state of a folder of clips from another: names, sizes and times of all its files, none is read.

    Raises OSError when it cannot be looked at.
    """
    found = [path for inner in ClipSearch(folder).folders(folder) for path in in_order(inner) if path.is_file()]
    return hash_of(*(f"{path} {state_of_file(path)}" for path in found))


def hash_of(*parts: str) -> str:
    """One name for some texts; where one ends and the next begins counts."""
    digest = blake2b(digest_size=20)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
