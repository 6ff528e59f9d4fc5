"""Cuts what the host gives for every frame of a batch to the frames of one chunk."""

from collections.abc import Sequence
from typing import Any

from comfy.conds import CONDRegular
from torch import Tensor

Conditioning = dict[str, Any]


def rows_for(x: Tensor, places: Sequence[int]) -> Tensor:
    """n ... -> f ...: the rows that the host would lay on these frames; one row for all stays one.

    The host repeats a batch that is too short from its start, and cuts one that is too long.
    """
    return x if x.shape[0] == 1 else x[[place % x.shape[0] for place in places]]


def chunk_conditioning(conditioning: Conditioning, places: Sequence[int], frames: int) -> Conditioning:
    """One entry of a conditioning as the ``places`` of a batch of ``frames`` see it; the entry itself stays as it is.

    Masks and what the model takes follow the host's own rule for batches of another length.  Any other tensor with a
    row for each frame is cut to its rows.
    """
    cut = dict(conditioning)
    for name, value in conditioning.items():
        if isinstance(value, Tensor) and value.ndim > 0 and frames > 1 and value.shape[0] == frames:
            cut[name] = value[list(places)]
    if "mask" in conditioning:
        cut["mask"] = rows_for(conditioning["mask"], places)
    model_conds = conditioning.get("model_conds", {})
    cut["model_conds"] = {name: cut_model_cond(value, places) for name, value in model_conds.items()}
    return cut


def cut_model_cond(value: CONDRegular, places: Sequence[int]) -> CONDRegular:
    """What one input of the model is for these frames; a constant, such as a frame count, stays."""
    if isinstance(value.cond, list):
        return value._copy_with([rows_for(x, places) if isinstance(x, Tensor) else x for x in value.cond])
    return value._copy_with(rows_for(value.cond, places)) if isinstance(value.cond, Tensor) else value
