"""Gives each call of the model the ControlNet hints of its own frames.

The host lays hints on the rows of a call from the first hint on, whichever frames these rows are.  What it makes of
hints once, such as all that a T2I-Adapter computes, is in the control objects; so those with the hints of some frames
are kept from step to step.
"""

import copy
import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from comfy.controlnet import ControlBase, T2IAdapter
from torch import Tensor

from .call_part import TransformerOptions
from .causal_windows import rows_for
from .frame_cache import MADE_ONCE_KEY, MadeOnce
from .versions import DEVICE_COPIES

logger = logging.getLogger(__name__)

Conditionings = list[list[dict[str, Any]] | None]
# Bytes of hints for whose frames control objects are kept; what is made of them on a card is one to five times as much.
MOST_BYTES = 2**27
# Where what is made once a sampling holds the control objects.
CONTROLS_KEY = "control objects"


def hint_rows(places: Sequence[int], hints: int, clip_lengths: Sequence[int] = ()) -> list[int]:
    """The hint of each frame, by its place in the batch.  Past the last hint, that one is held.

    Hints that are no more than the frames of a clip are for every clip, from its first frame on.
    """
    clip = min((length for length in clip_lengths if length >= hints), default=0)
    return [min(place % clip if clip else place, hints - 1) for place in places]


class OwnControls(MadeOnce):
    """Control objects with the hints of some frames, for all calls of a sampling that hold these frames.

    Where they hold too much, those go that were used last: chunks come round from the first one again, so what was
    used last is needed last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.present: set[Hashable] = set()

    def begin_call(self) -> None:
        """A denoising call follows; what it uses stays for as long as it lasts."""
        self.present.clear()

    def of_frames(self, control: ControlBase, places: Sequence[int], clip_lengths: Sequence[int]) -> ControlBase:
        """A copy of a control object with the hints of the frames at these places of the batch; made once, then kept.

        ``clip_lengths``: lengths of the clips in the batch, as for ``hint_rows``.
        """
        links = tuple((id(link), link.strength) for link in chain(control))
        key = (links, tuple(places), tuple(clip_lengths))
        self.present.add(key)
        if key in self.made:
            self.made[key] = self.made.pop(key)  # to the end, as the one used last
        else:
            own = with_hints(control, places, clip_lengths)
            self._make_room(hint_bytes(own))
            self.made[key] = (own, control)  # which is not to give its id to another
        return self.made[key][0]

    def clear(self) -> None:
        """Frees all of them, with what the host has made of their hints."""
        for own, _ in self.made.values():
            own.cleanup()
        self.made.clear()

    def _make_room(self, new: int) -> None:
        held = new + sum(hint_bytes(own) for own, _ in self.made.values())
        for key in [key for key in reversed(self.made) if key not in self.present]:
            if held <= MOST_BYTES:
                return
            own, _ = self.made.pop(key)
            held -= hint_bytes(own)
            own.cleanup()


def hint_bytes(control: ControlBase) -> int:
    """Bytes of the hints of a control object and of those that it is chained to."""
    return sum(hints.nbytes for link in chain(control) if (hints := link.cond_hint_original) is not None)


class RowsOfOneCall:
    """To be mixed into a T2I-Adapter: it computes anew for a call with other rows than those that it has computed for.

    The host repeats hints for each conditioning of a call, but lays what was computed for two of them on one too.
    """

    def get_control(self, x_noisy: Tensor, *args: object) -> dict[str, list[Tensor | None]] | None:
        """What the host's method gives for rows n c h w, from hints of as many rows."""
        if self.cond_hint is not None and len(self.cond_hint) not in (1, len(x_noisy)):
            self.cond_hint = None
        return super().get_control(x_noisy, *args)


@contextmanager
def own_hints(
    conditionings: Conditionings,
    places: Sequence[int],
    clip_lengths: Sequence[int],
    is_window: bool,
    options: TransformerOptions,
) -> Iterator[Conditionings]:
    """The conditionings with control objects that hold the hints of these frames, for one denoising call.

    ``is_window``: whether the frames are a part of the batch.  The control objects of the conditionings stay as they
    are.  One object for several conditionings stays one, because the host then runs them together.  ``options`` are
    those of the call; what is made once a sampling is kept until its end, and without it until the context ends.
    """
    once = options.get(MADE_ONCE_KEY)
    controls = OwnControls() if once is None else once.get(CONTROLS_KEY, OwnControls)
    controls.begin_call()
    try:
        yield [
            entries and [_entry(entry, controls, places, clip_lengths, is_window) for entry in entries]
            for entries in conditionings
        ]
    finally:
        if once is None:
            controls.clear()


def _entry(
    entry: dict[str, Any],
    controls: OwnControls,
    places: Sequence[int],
    clip_lengths: Sequence[int],
    is_window: bool,
) -> dict[str, Any]:
    control = entry.get("control")
    if control is None or not any(_needs_own(link, len(places), is_window) for link in chain(control)):
        return entry
    return entry | {"control": controls.of_frames(control, places, clip_lengths)}


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


def _needs_own(control: ControlBase, frames: int, is_window: bool) -> bool:
    """As many hints as frames of the whole batch are laid right by the host."""
    hints = frame_hints(control)
    return hints is not None and (is_window or hints.shape[0] != frames)


def with_hints(control: ControlBase, places: Sequence[int], clip_lengths: Sequence[int]) -> ControlBase:
    """A copy of a chain for these frames.

    The copy shares the network and what the host has prepared for this run: ``control.copy()`` would leave that out,
    and preparing a ControlLoRA anew builds its network again.
    """
    own = copy.copy(control)
    if isinstance(own, T2IAdapter):
        own.__class__ = type(type(control).__name__, (RowsOfOneCall, type(control)), {})
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
