"""Which conditionings of a call are negative ones, from which guidance leads away.

A guider names its conditionings, but hands them to the model as a list, in an order of its own.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

from comfy.samplers import CFGGuider

from .call_part import ModelOptions

# Where the options of a sampling hold its negative conditionings (``Negatives``).
NEGATIVES_KEY = "magicvideo_negatives"
# Where the options of a denoising call hold their places in its list.
NEGATIVE_SIDES_KEY = "magicvideo_negative_sides"


@dataclass(frozen=True)
class Negatives:
    """The negative conditionings of a guider: ``whole`` ones by the names of all their parts, and names of ``parts``
    that no other conditioning has.
    """

    whole: frozenset[tuple]
    parts: frozenset

    def __contains__(self, entries: list[dict[str, Any]]) -> bool:
        """Whether a conditioning of a call is negative: a whole one, or some parts, as windows may share them out."""
        names = names_of(entries)
        return names in self.whole or self.parts.issuperset(names)


def negative_conditionings(guider: CFGGuider) -> Negatives:
    """The conditionings that a guider calls negative."""
    sides = [("negative" in side, names_of(entries)) for side, entries in guider.conds.items() if entries]
    others = frozenset(chain.from_iterable(names for negative, names in sides if not negative))
    whole = frozenset(names for negative, names in sides if negative)
    return Negatives(whole, frozenset(chain.from_iterable(whole)) - others)


def names_of(entries: list[dict[str, Any]]) -> tuple:
    """The host's names of all parts of a conditioning.  Of a part for an area alone, another may have the same name."""
    return tuple(entry["uuid"] for entry in entries)


def with_negative_sides(model_options: ModelOptions, conds: list[list[dict[str, Any]] | None]) -> ModelOptions:
    """The options of a denoising call, with the places of the negative ones among its conditionings ``conds``."""
    options = model_options.get("transformer_options", {})
    negatives = options.get(NEGATIVES_KEY)
    if negatives is None or not negatives.whole:
        return model_options
    sides = frozenset(side for side, entries in enumerate(conds) if entries and entries in negatives)
    return {**model_options, "transformer_options": {**options, NEGATIVE_SIDES_KEY: sides}}


def negative_sides(model_options: ModelOptions) -> frozenset[int]:
    """The places of negative conditionings in the list of a denoising call with these options."""
    return model_options.get("transformer_options", {}).get(NEGATIVE_SIDES_KEY, frozenset())
