"""Keys and values of the frames before, kept from chunk to chunk of one denoising call.

An object of a class on purpose: the host copies the dicts of its options on the way to the UNet, so that each chunk
would find an empty one.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch

from ..temporal_attention import PastFrames

Past = Callable[[int, str, int], Sequence[PastFrames]]
# Where the options of a chunk hold the cache.
OPTION = "magicvideo_frames"


def no_past(motion: int, site: str, clip: int) -> Sequence[PastFrames]:
    """What a UNet call outside of chunks sees."""
    return ()


class FrameCache:
    """One denoising call's past, by motion, site and conditioning; ``device`` is where it waits, None for in place."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.entries: dict[Hashable, tuple[int, PastFrames]] = {}
        self.calls: Counter[Hashable] = Counter()

    def begin_chunk(self) -> None:
        """Conditionings are counted anew."""
        self.calls.clear()

    def of_call(self, conditionings: Sequence[Hashable]) -> Past:
        """The past that a UNet call with these conditionings sees: a function of motion, site and clip.

        A conditioning that comes twice in a chunk, such as tile by tile, is told apart by its turn.
        """
        runs = []
        for conditioning in conditionings:
            runs.append((conditioning, self.calls[conditioning]))
            self.calls[conditioning] += 1
        return partial(self._past, tuple(runs))

    def clear(self) -> None:
        """Frees all of it."""
        self.entries.clear()
        self.calls.clear()

    def _past(self, runs: tuple[Hashable, ...], motion: int, site: str, clip: int) -> Sequence[PastFrames]:
        return [self._entry((motion, site, run), clip) for run in runs]

    def _entry(self, key: Hashable, clip: int) -> PastFrames:
        """Another clip begins with no past, and the one before is dropped."""
        if key not in self.entries or self.entries[key][0] != clip:
            self.entries[key] = (clip, PastFrames(device=self.device))
        return self.entries[key][1]
