"""What a call of the UNet finds of earlier calls: of the frames before, and of what is made once a sampling.

Objects of classes on purpose: the host copies the dicts of its options on the way to the UNet, so that each call would
find empty ones.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import comfy.model_management
import torch
from torch import Tensor

from ..frame_layout import MAIN_MEMORY, FrameLayout, KeptFrames

Kept = TypeVar("Kept", bound=KeptFrames)
Made = TypeVar("Made")
EffectSite = tuple[Hashable, str]  # an effect by its number or id, and a site of the UNet by its name
# Where the options of a call hold the frames before, what is made once a sampling, and the effects of its card.
FRAMES_KEY, MADE_ONCE_KEY, EFFECTS_KEY = "magicvideo_frames", "magicvideo_once", "magicvideo_effects"


class MadeOnce:
    """What effects make once for all calls of a sampling, such as numbers copied to the device."""

    def __init__(self) -> None:
        self.made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made under this key, made now if it was not.  Objects in a key are there by their ``id``."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def holds(self, other: "MadeOnce") -> bool:
        """Whether another was added, and is cleared with this one."""
        return id(other) in self.made

    def add(self, other: "MadeOnce") -> None:
        """Another belongs to the same sampling from now on, and is cleared with this one."""
        self.made[id(other)] = other

    def clear(self) -> None:
        """Frees all of it."""
        others = [one for one in self.made.values() if isinstance(one, MadeOnce)]
        self.made.clear()
        for one in others:
            one.clear()


def no_frames(owner: Hashable, site: str, layout: FrameLayout, kind: Callable[..., Kept]) -> Sequence[Kept]:
    """The past of a call that knows of no frames before: no entries, whatever is asked for."""
    return ()


class CallCache:
    """What effects ask in one call: for what they have kept of the frames before, and for what was made already.

    Without a ``made_once``, as in training, where weights change from step to step, all is made at each call.
    """

    def __init__(self, frames: Callable[..., Sequence[Any]] = no_frames, made_once: MadeOnce | None = None) -> None:
        self.frames, self.made_once = frames, made_once

    def __call__(self, owner: Hashable, site: str, layout: FrameLayout, kind: Callable[..., Kept]) -> Sequence[Kept]:
        """One entry of ``kind`` for each b of the layout's batch, or none where nothing is kept.

        ``owner`` is the effect, by its ``id``.
        """
        return self.frames(owner, site, layout, kind)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` gives, which is called once a sampling for each key."""
        return make() if self.made_once is None else self.made_once.get(key, make)


no_cache = CallCache()


class FrameCache:
    """What effects keep of earlier frames, by owner, site, conditioning and clip.

    ``device`` is where it waits, None for in place.  ``keeps`` is whether frames of the present call are kept.
    ``shows_finished`` is whether the call only shows finished frames: all effects act in it, at whichever noise level.
    What waits in main memory is brought back while the site before is computed: sites are asked for in one order.
    Calls on several cards, with conditionings of their own, may ask at once.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.keeps, self.shows_finished = True, False
        self._sigmas: Tensor | None = None
        self._sigma = 0.0
        # As the host's own copies of weights: a switch of its command line turns both off.
        self.beside_work = device == MAIN_MEMORY and comfy.model_management.NUM_STREAMS > 0
        self.entries: dict[Hashable, tuple[int, KeptFrames]] = {}
        self.calls: Counter[Hashable] = Counter()
        self._next: dict[EffectSite, EffectSite] = {}  # what was asked for after it in a call before

    def begin_step(self, sigmas: Tensor) -> None:
        """One chunk or several follow, at these noise levels, n, which are all the same."""
        self._sigmas = sigmas

    def begin_chunk(self) -> None:
        """Calls for a chunk of frames follow.  Conditionings are counted anew."""
        self.calls.clear()

    @property
    def sigma(self) -> float:
        """The noise level of the present step, read from the device once, when it is first asked for."""
        if (sigmas := self._sigmas) is not None:
            self._sigma, self._sigmas = float(sigmas.flatten()[0]), None
        return self._sigma

    def of_call(
        self,
        conditionings: Sequence[Hashable],
        made_once: MadeOnce | None = None,
        effects: Sequence[object] = (),
    ) -> CallCache:
        """What a UNet call with these conditionings sees.

        A conditioning that comes twice in a chunk, such as tile by tile, is told apart by its turn.  ``effects`` are
        those of the call's card: by their number they are found again on another, where the next call may be.
        """
        turns = []
        for conditioning in conditionings:
            turns.append((conditioning, self.calls[conditioning]))
            self.calls[conditioning] += 1
        numbers = {id(effect): number for number, effect in enumerate(effects)}
        return CallCache(partial(self._entries, tuple(turns), numbers, deque(maxlen=1)), made_once)

    def clear(self) -> None:
        """Frees all of it."""
        self.entries.clear()
        self.calls.clear()

    def _entries(
        self,
        turns: tuple[Hashable, ...],
        numbers: dict[int, int],
        last: deque[EffectSite],
        owner: Hashable,
        site: str,
        layout: FrameLayout,
        kind: Callable[..., Kept],
    ) -> Sequence[Kept]:
        """Conditioning by conditioning, and the clips of each that stand side by side.

        ``turns`` has, for each conditioning of the call, what names it and how often it came in this chunk before.
        ``last``: what was asked for before.
        """
        side_by_side = range(layout.batch // len(turns))
        whose = [(turn, number) for turn in turns for number in side_by_side]
        first_clip, first = layout.clip_of[0], layout.positions[0]
        asked = (numbers.get(owner, owner), site)
        self._fetch_after(asked, last, whose, first_clip)
        return [self._entry((*asked, turn, number), first_clip + number, first, kind) for turn, number in whose]

    def _fetch_after(
        self, asked: EffectSite, last: deque[EffectSite], whose: Sequence[tuple[Hashable, int]], first_clip: int
    ) -> None:
        """Begins to bring back what will be asked for next, which a call before has shown."""
        for before in last:
            self._next[before] = asked
        last.append(asked)
        if asked not in self._next:
            return
        for turn, number in whose:
            clip, entry = self.entries.get((*self._next[asked], turn, number), (None, None))
            if clip == first_clip + number:
                entry.fetch()

    def _entry(self, key: Hashable, clip: int, first: int, kind: Callable[..., Kept]) -> Kept:
        """Another clip begins with no past, and the one before is dropped.  Frames that are kept are not kept again."""
        if key not in self.entries or self.entries[key][0] != clip:
            self.entries[key] = (clip, kind(device=self.device, beside_work=self.beside_work))
        entry = self.entries[key][1]
        entry.keeps = self.keeps and not (entry.positions and entry.positions[-1] >= first)
        if entry.by_level:
            entry.sigma = self.sigma
        return entry


def cache_of_call(transformer_options: dict[str, Any]) -> CallCache:
    """What a call finds of earlier ones; of the frames before its own, what belongs to its conditionings.

    A uuid alone does not name a conditioning: the host gives an area's to the part of the other side that it cuts out.
    """
    cache, made_once = transformer_options.get(FRAMES_KEY), transformer_options.get(MADE_ONCE_KEY)
    if cache is None:
        return CallCache(made_once=made_once)
    conditionings = list(zip(transformer_options["uuids"], transformer_options["cond_or_uncond"], strict=True))
    return cache.of_call(conditionings, made_once, transformer_options.get(EFFECTS_KEY, ()))
