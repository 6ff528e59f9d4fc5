"""What a call of the UNet knows of the frames before: keys and values, and statistics, kept from chunk to chunk.

An object of a class on purpose: the host copies the dicts of its options on the way to the UNet, so that each chunk
would find an empty one.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

Kept = TypeVar("Kept")
# Asked by an effect in one call: (owner, site, clip, kind) -> one entry of that kind for each conditioning, or none.
CallCache = Callable[..., Sequence[Any]]
# Where the options of a chunk hold the cache.
OPTION = "magicvideo_frames"


def no_cache(owner: Hashable, site: str, clip: int, kind: Callable[..., Kept]) -> Sequence[Kept]:
    """What a UNet call outside of chunks sees."""
    return ()


class FrameCache:
    """One denoising call's past, by owner, site and conditioning; ``device`` is where it waits, None for in place.

    An owner is an effect, by its ``id``.  ``kind(device=...)`` makes what it keeps.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.entries: dict[Hashable, tuple[int, object]] = {}
        self.calls: Counter[Hashable] = Counter()

    def begin_chunk(self) -> None:
        """Conditionings are counted anew."""
        self.calls.clear()

    def of_call(self, conditionings: Sequence[Hashable]) -> CallCache:
        """The past that a UNet call with these conditionings sees: a function of owner, site, clip and kind.

        A conditioning that comes twice in a chunk, such as tile by tile, is told apart by its turn.
        """
        turns = []
        for conditioning in conditionings:
            turns.append((conditioning, self.calls[conditioning]))
            self.calls[conditioning] += 1
        return partial(self._entries, tuple(turns))

    def clear(self) -> None:
        """Frees all of it."""
        self.entries.clear()
        self.calls.clear()

    def _entries(
        self, turns: tuple[Hashable, ...], owner: Hashable, site: str, clip: int, kind: Callable[..., Kept]
    ) -> Sequence[Kept]:
        return [self._entry((owner, site, turn), clip, kind) for turn in turns]

    def _entry(self, key: Hashable, clip: int, kind: Callable[..., Kept]) -> Kept:
        """Another clip begins with no past, and the one before is dropped."""
        if key not in self.entries or self.entries[key][0] != clip:
            self.entries[key] = (clip, kind(device=self.device))
        return self.entries[key][1]


def cache_of_call(transformer_options: dict[str, Any]) -> CallCache:
    """The frames before a chunk, as the conditionings of this call have them.

    A uuid alone does not name a conditioning: the host gives an area's to the part of the other side that it cuts out.
    """
    cache = transformer_options.get(OPTION)
    if cache is None:
        return no_cache
    return cache.of_call(list(zip(transformer_options["uuids"], transformer_options["cond_or_uncond"], strict=True)))
