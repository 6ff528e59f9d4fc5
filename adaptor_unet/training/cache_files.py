"""Files of the cache: written whole or not at all, and read back only when they are sound."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..whole_file import written_whole


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    with written_whole(path) as partial:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)


def read_metadata(path: Path, least_tensors: int = 1) -> dict[str, str] | None:
    """What a file says of itself; None when it is not there, cut short or no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {} if len(file.keys()) >= least_tensors else None
    except (SafetensorError, OSError):
        return None


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor, in memory of its own; raises ValueError when the file is gone or damaged since it was checked.

    Nodes run in inference mode, whose tensors cannot be trained on: this is none.
    """
    try:
        with torch.inference_mode(False), safe_open(path, framework="pt") as file:
            return file.get_tensor(name).clone()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} of the cache cannot be read ({error}). Start again: it will be made anew.") from error


def save_json(path: Path, content: object) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content), encoding="ascii")


def read_json(path: Path) -> dict:
    """A saved dictionary; an empty one when the file is not there or damaged."""
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
