"""A file of tensors, open for reading: its header is looked at first, and each tensor is checked before it is used.

A file is refused by the error of a ``Wanted``, in a sentence that names the file, what was found and what to do.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .file_kind import Wanted, kind_of_bytes

MOST_HEADER_BYTES = 4 * 2**20
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class OpenFile:
    """A file that is open for reading.

    ``shapes`` are those of its tensors by name, ``read`` gives the tensor of a name, ``metadata`` is the text in a
    safetensors file's header.
    """

    path: Path
    shapes: Mapping[str, Shape]
    read: Callable[[str], Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def opened_safetensors(path: Path, wanted: Wanted) -> Iterator[OpenFile]:
    """A safetensors file, open for as long as the context lasts.

    Raises the error of ``wanted`` for a file that is missing, damaged or of another format.
    """
    try:
        check_header(path, wanted)
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            yield OpenFile(path, shapes, file.get_tensor, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise wanted.refusal(path, f"cannot be read as safetensors ({error})") from error


def check_header(path: Path, wanted: Wanted) -> None:
    """Raises the error of ``wanted`` for what cannot be a safetensors file by its size and its first bytes."""
    wanted.check_there(path)
    size, start = path.stat().st_size, start_of(path)
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else None
    if length is not None and start[8:] == b"{" and 8 + length > size:
        raise wanted.refusal(path, f"is cut short or damaged: its header wants {length} bytes, the file has {size}")
    if length is None or start[8:] != b"{":
        raise wanted.refusal(path, f"is {kind_of_bytes(path) or 'no safetensors file'}")
    if length > MOST_HEADER_BYTES:
        raise wanted.refusal(path, f"has a header of {length} bytes, far more than {wanted.short} needs")


def start_of(path: Path) -> bytes:
    """The first nine bytes of a safetensors file: the header's length, little-endian, and the header's first byte."""
    with path.open("rb") as file:
        return file.read(9)


def read_tensors(
    file: OpenFile, expected: Mapping[str, Tensor], wanted: Wanted, names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The tensors of a file by our names, copied, so that the file may change or vanish afterwards.

    ``expected`` has a tensor of the right shape for each of our names; ``names`` has the file's own name for each, if
    they differ.  Raises the error of ``wanted`` unless names, shapes and dtypes are right and all values finite.
    """
    names = {name: name for name in file.shapes} if names is None else names
    if names.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - names.keys()), sorted(names.keys() - expected.keys())
        raise wanted.refusal(
            file.path, f"lacks {len(missing)} tensors {missing[:1]} and has {len(extra)} unknown ones {extra[:1]}"
        )
    for name, like in expected.items():
        shape = file.shapes[names[name]]
        if shape != tuple(like.shape):
            raise wanted.refusal(
                file.path, f"has shape {list(shape)} for {names[name]}, where {list(like.shape)} was expected"
            )
    return {name: plain_tensor(file, names[name], wanted) for name in expected}


def plain_tensor(file: OpenFile, name: str, wanted: Wanted) -> Tensor:
    """A copy of one tensor of a file.

    Raises the error of ``wanted`` unless it holds finite numbers of 32 or 16 bits in memory of its own.
    """
    tensor = file.read(name)
    if tensor.dtype not in FLOATS or tensor.untyped_storage().nbytes() < tensor.nbytes or not tensor.isfinite().all():
        raise wanted.refusal(file.path, f"has values in {name} that are not finite numbers of 32 or 16 bits")
    return tensor.clone(memory_format=torch.contiguous_format)
