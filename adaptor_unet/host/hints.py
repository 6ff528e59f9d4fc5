"""Gives each call of the model the ControlNet hints of its own frames.

The host lays hints on the rows of a call from the first hint on, whichever frames these rows are.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from comfy.controlnet import ControlBase
from torch import Tensor

from .causal_windows import rows_for
from .versions import DEVICE_COPIES

logger = logging.getLogger(__name__)

Conditionings = list[list[dict[str, Any]] | None]


def hint_rows(places: Sequence[int], hints: int, clip_lengths: Sequence[int] = ()) -> list[int]:
    """The hint of each frame, by its place in the batch.  Past the last hint, that one is held.

    Hints that are no more than the frames of a clip are for every clip, from its first frame on.
    """
    clip = min((length for length in clip_lengths if length >= hints), default=0)
    return [min(place % clip if clip else place, hints - 1) for place in places]


@contextmanager
def own_hints(
    conditionings: Conditionings, places: Sequence[int], clip_lengths: Sequence[int], part: bool
) -> Iterator[Conditionings]:
    """The conditionings with control objects that hold the hints of these frames; gone when the context ends.

    ``part`` says that the frames are a part of the batch.  The control objects of the conditionings stay as they are.
    One object for several conditionings stays one, because the host then runs them together.
    """
    copies: dict[int, ControlBase] = {}
    try:
        yield [
            entries and [_entry(entry, copies, places, clip_lengths, part) for entry in entries]
            for entries in conditionings
        ]
    finally:
        for control in copies.values():
            control.cleanup()


def _entry(
    entry: dict[str, Any],
    copies: dict[int, ControlBase],
    places: Sequence[int],
    clip_lengths: Sequence[int],
    part: bool,
) -> dict[str, Any]:
    control = entry.get("control")
    if control is None or not any(_needs_own(link, len(places), part) for link in chain(control)):
        return entry
    if id(control) not in copies:
        copies[id(control)] = with_hints(control, places, clip_lengths)
    return entry | {"control": copies[id(control)]}


def chain(control: ControlBase | None) -> Iterator[ControlBase]:
    """A control object and those that it is chained to."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def frame_hints(control: ControlBase) -> Tensor | None:
    """The hints of a control object, ``n c h w``, if it has one for each frame.

    One hint is for every frame.  Objects of other packs that read ``ad_params`` keep it in ``sub_idxs`` and choose
    their hints themselves.
    """
    hints = control.cond_hint_original
    return None if hints is None or hints.shape[0] == 1 or hasattr(control, "sub_idxs") else hints


def _needs_own(control: ControlBase, frames: int, part: bool) -> bool:
    """As many hints as frames of the whole batch are laid right by the host."""
    hints = frame_hints(control)
    return hints is not None and (part or hints.shape[0] != frames)


def with_hints(control: ControlBase, places: Sequence[int], clip_lengths: Sequence[int]) -> ControlBase:
    """A copy of a chain for these frames.

    The copy shares the network and what the host has prepared for this run: ``control.copy()`` would leave that out,
    and preparing a ControlLoRA anew builds its network again.
    """
    own = copy.copy(control)
    own.cond_hint = None  # so the host makes it, and what a T2I-Adapter makes of it, from these hints
    own.extra_args = dict(control.extra_args)
    own.extra_concat_orig = [rows_for(x, places) for x in control.extra_concat_orig]
    hints = frame_hints(control)
    if hints is not None:
        rows = hint_rows(places, hints.shape[0], clip_lengths)
        logger.debug("frames %s: hints %s of %s", list(places), rows, type(control).__name__)
        own.cond_hint_original = hints[rows]
    if control.previous_controlnet is not None:
        own.previous_controlnet = with_hints(control.previous_controlnet, places, clip_lengths)
    if DEVICE_COPIES in vars(control):
        others = vars(control)[DEVICE_COPIES].items()
        setattr(own, DEVICE_COPIES, {device: with_hints(other, places, clip_lengths) for device, other in others})
    return own
