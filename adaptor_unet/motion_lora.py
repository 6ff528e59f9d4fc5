"""MotionLoRA: a low-rank change of a motion module's attentions, as for one movement of the camera.

Axes: o output channels, i input channels, r rank.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .file_kind import Wanted, kind_of_keys
from .motion_module import MotionModule, with_tensors
from .motion_module_file import BLOCK, IMAGE_LORA, SITE, MotionFileError, Unpickle, is_lora, opened, own_name
from .tensor_file import plain_tensor

MOTION_LORA = Wanted(
    "a MotionLoRA",
    "a MotionLoRA for an AnimateDiff motion module",
    "Choose one such as v2_lora_ZoomIn.ckpt.",
    MotionFileError,
)
# Behind a place's name: which attention, which of its weights, and which part of the change.
PART = re.compile(
    r"(?P<attention>attention_blocks\.[01])\.(?:processor\.)?to_(?P<weight>q|k|v|out)(?:\.0)?(?:_lora)?\."
    r"(?P<end>down|up|lora_down|lora_up|lora_A|lora_B|lora\.down|lora\.up|alpha)(?:\.weight)?"
)
DOWN, UP = ("down", "lora_down", "lora_A", "lora.down"), ("up", "lora_up", "lora_B", "lora.up")


@dataclass(frozen=True)
class LowRank:
    """``scale * up @ down``, the change of one weight: ``up`` is o r, ``down`` r i."""

    down: Tensor
    up: Tensor
    scale: float

    def added_to(self, weight: Tensor, strength: float) -> Tensor:
        """``W + s scale up down``, o i, computed in fp32 and given in the weight's dtype."""
        change = self.up.to(weight.device, torch.float32) @ self.down.to(weight.device, torch.float32)
        return (weight.float() + strength * self.scale * change).to(weight.dtype)


@dataclass(frozen=True)
class MotionLora:
    """The changes of one file, by the names of the motion module's weights; ``name`` is the file's."""

    name: str
    changes: Mapping[str, LowRank]


def load_motion_lora(path: Path, unpickle: Unpickle) -> MotionLora:
    """The MotionLoRA in ``path``.  Raises MotionFileError for files that are damaged or of another kind."""
    with opened(path, unpickle, MOTION_LORA) as file:
        if not is_lora(file.shapes):
            other = "a motion module. Use the node Load Motion Module" if any(map(SITE.search, file.shapes)) else None
            raise MOTION_LORA.refusal(path, f"seems to be {other or kind_of_keys(file.shapes)}")
        if any("motion_modules" in name and not SITE.search(name) for name in file.shapes):
            raise MOTION_LORA.refusal(
                path, "is a LoRA on a motion module in names that are not AnimateDiff's or diffusers'"
            )
        if not any(map(SITE.search, file.shapes)):
            raise MOTION_LORA.refusal(path, f"is {IMAGE_LORA}")
        found: dict[str, dict[str, Tensor]] = {}
        for name in file.shapes:
            weight, end = weight_of(path, name)
            if end in found.setdefault(weight, {}):
                raise MOTION_LORA.refusal(path, f"changes {weight} twice")
            found[weight][end] = plain_tensor(file, name, MOTION_LORA)
    return MotionLora(path.name, {weight: low_rank(path, weight, ends) for weight, ends in found.items()})


def weight_of(path: Path, name: str) -> tuple[str, str]:
    """Which of the module's weights a tensor of the file changes, and which part of the change it is."""
    site, _, inner = (own_name(name) or "").partition(f".{BLOCK}")
    found = PART.fullmatch(inner)
    if found is None:
        raise MOTION_LORA.refusal(path, f"has a tensor that is no part of a motion module's attention, {name[:120]!r}")
    end = "alpha" if found["end"] == "alpha" else "down" if found["end"] in DOWN else "up"
    weight = "to_out.0" if found["weight"] == "out" else f"to_{found['weight']}"
    return f"{site}.{BLOCK}{found['attention']}.{weight}.weight", end


def low_rank(path: Path, weight: str, ends: Mapping[str, Tensor]) -> LowRank:
    """The change that these tensors are.  Raises MotionFileError unless they fit each other."""
    down, up = ends.get("down"), ends.get("up")
    if down is None or up is None or down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise MOTION_LORA.refusal(path, f"has no pair of matrices that fit each other for {weight}")
    alpha = ends.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise MOTION_LORA.refusal(path, f"has an alpha that is no number for {weight}")
    return LowRank(down, up, 1.0 if alpha is None else float(alpha) / down.shape[0])


def check_fit(lora: MotionLora, module: MotionModule) -> None:
    """Raises MotionFileError when a change has no place in the module, or another shape."""
    weights = module.state_dict()
    kind = module.config.kind
    without = sorted(name for name in lora.changes if name not in weights)
    if without:
        raise MotionFileError(
            f"{lora.name} was trained on another kind of motion module than this one, which is {kind} and has no "
            f"{without[0].partition('.' + BLOCK)[0]}. Most MotionLoRAs are for AnimateDiff v2: load mm_sd_v15_v2."
        )
    for name, change in lora.changes.items():
        shape = (change.up.shape[0], change.down.shape[1])
        if shape != tuple(weights[name].shape):
            raise MotionFileError(
                f"{lora.name} changes a weight of {list(shape)}, where this motion module has "
                f"{list(weights[name].shape)} ({name}). Choose a MotionLoRA for an SD1.5 motion module."
            )


def with_motion_lora(module: MotionModule, lora: MotionLora, strength: float) -> MotionModule:
    """A module with the changes added, which shares all other tensors; the one that came in stays as it is.

    Raises MotionFileError when the two do not fit.
    """
    check_fit(lora, module)
    weights = module.state_dict()
    changed = {name: change.added_to(weights[name], strength) for name, change in lora.changes.items()}
    return with_tensors(module.config, {**weights, **changed})
