"""What a call of the UNet knows of the frames before: keys and values, and statistics, kept from chunk to chunk.

An object of a class on purpose: the host copies the dicts of its options on the way to the UNet, so that each chunk
would find an empty one.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from ..frame_layout import FrameLayout, KeptFrames

Kind = TypeVar("Kind", bound=KeptFrames)
# Asked by an effect in one call: (owner, site, layout, kind) -> one entry of that kind for each b of the layout's
# batch, or none where nothing is kept.  The owner is the effect, by its ``id``.
CallCache = Callable[..., Sequence[Any]]
# Where the options of a call hold the cache.
OPTION = "magicvideo_frames"


def no_cache(owner: Hashable, site: str, layout: FrameLayout, kind: Callable[..., Kind]) -> Sequence[Kind]:
    """What a UNet call sees that knows of no frames before."""
    return ()


class FrameCache:
    """What effects keep of earlier frames, by owner, site, conditioning and clip.

    ``device`` is where it waits, None for in place.  ``keeps`` and ``sigma`` are those of the present call.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.keeps, self.sigma = True, 0.0
        self.entries: dict[Hashable, tuple[int, KeptFrames]] = {}
        self.calls: Counter[Hashable] = Counter()

    def begin_chunk(self) -> None:
        """Conditionings are counted anew."""
        self.calls.clear()

    def of_call(self, conditionings: Sequence[Hashable]) -> CallCache:
        """What a UNet call with these conditionings sees.

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
        self, turns: tuple[Hashable, ...], owner: Hashable, site: str, layout: FrameLayout, kind: Callable[..., Kind]
    ) -> Sequence[Kind]:
        """Conditioning by conditioning, and the clips of each that stand side by side."""
        beside = range(layout.batch // len(turns))
        return [
            self._entry((owner, site, turn, number), layout.clip_of[0] + number, layout.positions[0], kind)
            for turn in turns
            for number in beside
        ]

    def _entry(self, key: Hashable, clip: int, first: int, kind: Callable[..., Kind]) -> Kind:
        """Another clip begins with no past, and the one before is dropped.  Frames that are kept are not kept again."""
        if key not in self.entries or self.entries[key][0] != clip:
            self.entries[key] = (clip, kind(device=self.device))
        entry = self.entries[key][1]
        entry.keeps = self.keeps and not (entry.positions and entry.positions[-1] >= first)
        entry.sigma = self.sigma
        return entry


def cache_of_call(transformer_options: dict[str, Any]) -> CallCache:
    """The frames before those of a call, as the call's conditionings have them.

    A uuid alone does not name a conditioning: the host gives an area's to the part of the other side that it cuts out.
    """
    cache = transformer_options.get(OPTION)
    if cache is None:
        return no_cache
    return cache.of_call(list(zip(transformer_options["uuids"], transformer_options["cond_or_uncond"], strict=True)))
