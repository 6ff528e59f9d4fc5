"""Which conditionings of a call are negative ones, from which guidance leads away.

A guider names its conditionings, but hands them to the model as a list, in an order of its own.
"""

from typing import Any

from comfy.samplers import CFGGuider

from .call_part import ModelOptions

# Where the options of a sampling hold its negative conditionings, each by the names of its parts.
NEGATIVES_KEY = "magicvideo_negatives"
# Where the options of a denoising call hold their places in its list.
NEGATIVE_SIDES_KEY = "magicvideo_negative_sides"


def negative_conditionings(guider: CFGGuider) -> frozenset[tuple]:
    """The conditionings that a guider calls negative, each by the names of its parts."""
    return frozenset(names_of(entries) for side, entries in guider.conds.items() if "negative" in side and entries)


def names_of(entries: list[dict[str, Any]]) -> tuple:
    """The host's names of all parts of a conditioning.  Of a part for an area alone, another may have the same name."""
    return tuple(entry["uuid"] for entry in entries)


def with_negative_sides(model_options: ModelOptions, conds: list[list[dict[str, Any]] | None]) -> ModelOptions:
    """The options of a denoising call, with the places of the negative ones among its conditionings ``conds``."""
    options = model_options.get("transformer_options", {})
    if not (negatives := options.get(NEGATIVES_KEY)):
        return model_options
    sides = frozenset(side for side, entries in enumerate(conds) if entries and names_of(entries) in negatives)
    return {**model_options, "transformer_options": {**options, NEGATIVE_SIDES_KEY: sides}}


def negative_sides(model_options: ModelOptions) -> frozenset[int]:
    """The places of negative conditionings in the list of a denoising call with these options."""
    return model_options.get("transformer_options", {}).get(NEGATIVE_SIDES_KEY, frozenset())
