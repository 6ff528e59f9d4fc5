"""What changes the trained weights: AdamW, or AdamW with its moments in 8 bits; and what a run's state keeps of either.

Axes: none; of a parameter of n values, bitsandbytes scales each block of them by a number of its own.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .settings import Optimiser

# What AdamW keeps of a parameter, beside the number of its steps.
MOMENTS = ("exp_avg", "exp_avg_sq")
# What bitsandbytes keeps: two moments, and where these are in 8 bits, for each the scales of its blocks and the table
# of the values that 8 bits stand for.  Parameters of fewer values are kept in 32 bits.
STATES, SCALES, TABLES = ("state1", "state2"), ("absmax1", "absmax2"), ("qmap1", "qmap2")
SMALLEST, BLOCK, BYTE_VALUES = 4096, 256, 256
# What the library raises where its compiled part is missing, or knows no such device.
CANNOT = (RuntimeError, AttributeError, NameError, TypeError, ValueError, OSError)


def made_optimiser(name: Optimiser, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """An optimiser of these groups of parameters, each with its ``lr`` and ``weight_decay``.

    Raises ImportError with a sentence when bitsandbytes is needed and not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError(
            "optimiser adamw_8bit needs bitsandbytes: run `pip install bitsandbytes` in ComfyUI's Python, or take "
            "optimiser adamw."
        ) from error
    return AdamW8bit(groups, min_8bit_size=SMALLEST)


def check_optimiser(name: Optimiser, device: torch.device) -> None:
    """Raises ImportError when the optimiser's library is missing, and ValueError when it cannot work on the device."""
    if name == "adamw":
        return
    weight = nn.Parameter(torch.ones(SMALLEST, device=device))
    weight.grad = torch.ones_like(weight)
    try:
        made_optimiser(name, [{"params": [weight], "lr": 1e-3, "weight_decay": 0.0}]).step()
    except CANNOT as error:
        raise ValueError(
            f"optimiser adamw_8bit does not work on {device} with the bitsandbytes that is installed ({error}). "
            "Install a newer one, or take optimiser adamw."
        ) from error


def kept_of(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What an optimiser keeps of a parameter, by name; nothing of one that was not trained yet."""
    state = optimiser.state.get(parameter, {})
    return {key: x if isinstance(x, Tensor) else torch.tensor(float(x)) for key, x in state.items()}


def put_back(optimiser: torch.optim.Optimizer, parameter: nn.Parameter, kept: dict[str, Tensor]) -> None:
    """Gives an optimiser what ``kept_of`` gave of a parameter, in tensors of its own, so that it goes on from there.

    Those of a state that was read lie in the file itself, which Windows does not let go while one of them is there.
    """
    step = kept["step"].cpu().clone()
    name = name_of(optimiser)
    others = {key: kept[key].to(parameter.device, copy=True) for key in expected(name, parameter.shape)}
    optimiser.state[parameter] = {"step": step if name == "adamw" else int(step), **others}


def check_kept(optimiser: torch.optim.Optimizer, name: str, shape: torch.Size, kept: dict[str, Tensor]) -> None:
    """Raises ValueError unless what was kept of a parameter of that name and shape is all there, and sound.

    It may be missing as a whole: nothing is kept of a parameter that was not trained yet.
    """
    if not kept:
        return
    step = kept.get("step")
    if step is None or step.numel() != 1 or not 0 <= float(step.real) < float("inf"):
        raise ValueError(f"the optimiser's step of {name} is no number")
    for key, (wanted, dtype) in expected(name_of(optimiser), shape).items():
        words, found = f"the optimiser's {key} of {name}", kept.get(key)
        if dtype == torch.uint8 and found is not None:
            check_shape(words, found, wanted)
            if found.dtype != dtype:
                raise ValueError(f"{words} is not in 8 bits")
        else:
            check_finite(words, found, wanted)


def expected(name: Optimiser, shape: torch.Size) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of each tensor that an optimiser keeps of a parameter, beside the number of steps, by name."""
    if name == "adamw" or shape.numel() < SMALLEST:
        return dict.fromkeys(MOMENTS if name == "adamw" else STATES, (shape, torch.float32))
    blocks, levels = torch.Size([math.ceil(shape.numel() / BLOCK)]), torch.Size([BYTE_VALUES])
    states = dict.fromkeys(STATES, (shape, torch.uint8))
    return states | dict.fromkeys(SCALES, (blocks, torch.float32)) | dict.fromkeys(TABLES, (levels, torch.float32))


def name_of(optimiser: torch.optim.Optimizer) -> Optimiser:
    """The name of an optimiser, as the setting has it."""
    return "adamw" if isinstance(optimiser, torch.optim.AdamW) else "adamw_8bit"


def check_finite(words: str, tensor: Tensor | None, shape: torch.Size) -> None:
    """Raises ValueError, with what the tensor is in ``words``, unless it is there, of that shape and finite."""
    if tensor is None:
        raise ValueError(f"{words} is missing")
    check_shape(words, tensor, shape)
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise ValueError(f"{words} holds values that are no finite numbers")


def check_shape(words: str, tensor: Tensor, shape: torch.Size) -> None:
    """Raises ValueError, with what the tensor is in ``words``, unless it has that shape."""
    if tensor.shape != shape:
        raise ValueError(f"{words} has the shape {list(tensor.shape)}, expected {list(shape)}")
