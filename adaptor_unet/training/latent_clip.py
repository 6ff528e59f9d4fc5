"""What the trainer learns from: clips as latents, with their frame rate and their text.

Axes: f frames, c channels, h height, w width of the latents; n tokens and d channels of the text.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class LatentClip:
    """One sub-clip, ready for the UNet.

    ``latents`` (f c h w) have the scale that the UNet works on and the dtype in which they are stored, float16 when
    they come from the cache: cast them before adding noise.  ``fps`` is the rate of these frames, 0 for a still.
    ``text`` (n d) is the embedding of ``caption``.
    """

    latents: Tensor
    fps: float
    text: Tensor
    caption: str


class ClipSet(Protocol):
    """Clips that can be had in any order.

    ``groups`` are the sizes of runs of items that lie together on disk and add up to the length: one run for a folder,
    one a shard.  Reading run after run, in any order within a run, is fast.
    """

    groups: tuple[int, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LatentClip: ...
