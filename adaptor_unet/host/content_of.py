"""Names for what other nodes have set on a model or a text encoder: patches, which are functions, and hooks."""

import logging
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import uuid4

import numpy
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

logger = logging.getLogger(__name__)

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, Enum, Path)
PLAIN += (torch.dtype, torch.device, numpy.generic)
NOTHING = torch.zeros(0)
Named = Iterator[tuple[str, Tensor]]


def content_of(value: object, name: str) -> Named:
    """Named tensors that are the same for the same value in another process, for ``content_name``.

    Objects count by their class and all that they hold, functions by their code and what it has of the functions around
    it; of modules and classes the name alone.  What shows nothing of itself, such as an open file, is named in the log
    and is like nothing else, so that nothing is taken for it.
    """
    yield from _content(value, name, {})


def _content(value: Any, name: str, seen: dict[int, tuple[int, object]]) -> Named:  # noqa: ANN401 - a patch may hold anything
    """``seen``: by their ``id``, the number of each object that came before; kept, so that no other gets its ``id``."""
    if isinstance(value, PLAIN):
        yield f"{name} {type(value).__qualname__} {value!r}", NOTHING
        return
    if id(value) in seen:
        yield f"{name} as {seen[id(value)][0]}", NOTHING
        return
    seen[id(value)] = len(seen), value
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (type, ModuleType, BuiltinFunctionType)):
        yield f"{name} {getattr(value, '__module__', '')} {value.__name__}", NOTHING
    elif (parts := made_of(value)) is None:
        told = f"{type(value).__module__}.{type(value).__qualname__}"
        logger.warning(
            "%s holds a %s, which cannot be told from another: an earlier run is not gone on with.", name, told
        )
        yield f"{name} {told} {uuid4()}", NOTHING
    else:
        yield f"{name} {type(value).__module__} {type(value).__qualname__} {len(parts)}", NOTHING
        for part, held in parts.items():
            yield from _content(held, f"{name}.{part}", seen)


def made_of(value: object) -> dict[str, object] | None:
    """What a value is made of, by name and in an order of its own; None where that cannot be seen."""
    match value:
        case dict():
            if all(map(is_plain, value)):
                return {repr(key): value[key] for key in sorted(value, key=repr)}
            return dict(enumerate([*value, *value.values()]))
        case list() | tuple():
            return dict(enumerate(value))
        case numpy.ndarray() if value.dtype.kind in "biufc":
            return {"values": torch.from_numpy(value.copy())}
        case set() | frozenset() if all(map(is_plain, value)):
            return dict(enumerate(sorted(value, key=repr)))
        case CodeType():
            names = ("co_code", "co_consts", "co_names")
            return {name: getattr(value, name) for name in names}
        case FunctionType():
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return {"code": value.__code__, "around": cells, "defaults": [value.__defaults__, value.__kwdefaults__]}
        case MethodType():
            return {"function": value.__func__, "self": value.__self__}
        case partial():
            return {"function": value.func, "given": [value.args, value.keywords]}
        case ModelPatcher():
            return {"model": value.model, "patches": value.patches}
        case nn.Module():
            return {"settings": plain_settings(value), "tensors": value.state_dict()}
    held = getattr(value, "__dict__", None)
    return None if held is None or getattr(type(value), "__slots__", None) else dict(sorted(held.items()))


def is_plain(value: object) -> bool:
    """Whether the ``repr`` of a value says all of it."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))


def plain_settings(value: object, plain: tuple[type, ...] = PLAIN) -> dict[str, object]:
    """The attributes of an object that are plain values, of these types, by name and in the order of names."""
    return {name: held for name, held in sorted(vars(value).items()) if isinstance(held, plain)}


def qualified_name(function: Callable) -> str:
    """The name of a function, or of the class of an object that is called, with the classes around it."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__
