"""Schedules of the host's hooks (*Set Hook Keyframes*) where sampling goes back to its beginning.

The host walks a schedule once a sampling, from its first keyframe on and never back. Frame by frame every chunk begins
anew, and between its steps finished frames are shown to the network as they were at the end.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from comfy.hooks import HookKeyframeGroup
from comfy.model_base import BaseModel
from torch import Tensor

from .call_part import ModelOptions
from .versions import DEVICE_COPIES

# Of each group of keyframes, what it knows of where in its schedule it is.
GroupStates = list[dict[str, Any]]


class HookSchedules:
    """The schedules of all hooks in prepared conditionings, at the start of a sampling over ``sigmas``."""

    def __init__(self, conds: Iterable[list[dict[str, Any]] | None], sigmas: Tensor) -> None:
        hooks = (
            hook for entries in conds for entry in entries or () if entry.get("hooks") for hook in entry["hooks"].hooks
        )
        groups = {id(hook.hook_keyframe): hook.hook_keyframe for hook in hooks}
        # One keyframe is the same from beginning to end.
        self.groups: list[HookKeyframeGroup] = [group for group in groups.values() if len(group.keyframes) > 1]
        self.start = self._states()
        for sigma in sigmas[:-1].tolist() if self.groups else ():
            for group in self.groups:
                group.prepare_current_keyframe(sigma, {"sample_sigmas": sigmas})
        self.end = self._states()
        self._restore(self.start)

    def begin_again(self, model: BaseModel, options: ModelOptions) -> None:
        """Takes every schedule back to its first keyframe.  ``options`` are those of the model."""
        self._go_to(self.start, model, options)

    @contextmanager
    def at_the_end(self, model: BaseModel, options: ModelOptions) -> Iterator[None]:
        """For as long as the context lasts, every schedule stands where it is in the last step; then as before."""
        before = self._states()
        self._go_to(self.end, model, options)
        try:
            yield
        finally:
            self._go_to(before, model, options)

    def _states(self) -> GroupStates:
        return [dict(vars(group)) for group in self.groups]

    def _restore(self, states: GroupStates) -> None:
        for group, known in zip(self.groups, states, strict=True):
            vars(group).update(known)

    def _go_to(self, states: GroupStates, model: BaseModel, options: ModelOptions) -> None:
        if not self.groups:
            return
        self._restore(states)
        # Weights that were patched by another strength; the next call patches them anew.
        for patcher in (model.current_patcher, *options.get(DEVICE_COPIES, {}).values()):
            patcher.clean_hooks()
