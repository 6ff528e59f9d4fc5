"""Training items out of the cache: one for each sub-clip of each clip of a folder.

Axes: n tokens, d channels of the text.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from torch import Tensor

from .cache_files import read_tensor
from .latent_clip import LatentClip


@dataclass(frozen=True)
class CachedClip:
    """Where the latents of a clip's sub-clips and its text lie, and the frame rate of each sub-clip."""

    latents: Path
    fps: tuple[float, ...]
    text: Path
    caption: str


class FolderClips:
    """A ClipSet that keeps nothing in memory: an item is read from the cache when it is asked for.

    ``empty_text`` (n d) is the embedding of the empty caption, for training without text now and then.  ``skipped`` are
    the files that could not be used, each with the reason.
    """

    def __init__(
        self, clips: Sequence[CachedClip], empty_text: Tensor, skipped: Sequence[tuple[Path, str]] = ()
    ) -> None:
        self.clips, self.empty_text, self.skipped = tuple(clips), empty_text, tuple(skipped)
        self._ends = tuple(accumulate(len(clip.fps) for clip in self.clips))
        self.groups = (len(self),)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> LatentClip:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        place = bisect_right(self._ends, index)
        clip = self.clips[place]
        draw = index - (self._ends[place] - len(clip.fps))
        latents = read_tensor(clip.latents, str(draw))
        return LatentClip(latents, clip.fps[draw], read_tensor(clip.text, "text"), clip.caption)
