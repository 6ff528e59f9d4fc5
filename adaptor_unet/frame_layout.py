"""Which row of a batch is which frame of which clip.

Axes: b clips or conditionings of the batch, f frames of each, k frames looked at.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from .offload import Offloaded, streams_of

MAIN_MEMORY = torch.device("cpu")
# What is kept for each chunk of a clip: all of a clip's chunks come before any comes again, so it must hold them all.
CHUNKS_KEPT = 1024


@dataclass
class KeptFrames:
    """What an effect keeps of the frames before a call, at one site of the UNet and of one clip; a class for each kind.

    ``positions``: which frames of the clip are kept, for those who keep them one by one.  ``device``: where tensors
    wait, None for where they are.  ``keeps``: whether the frames of the present call are to be kept; if not, they see
    what is there and leave it as it is.  ``by_level``: whether it tells noise levels apart; then ``sigma`` is that of
    the call.  ``beside_work``: whether copies to main memory and back may run beside a card's work; ``away``: what is
    copied so, by name.
    """

    by_level: ClassVar[bool] = False
    positions: tuple[int, ...] = ()
    device: torch.device | None = None
    keeps: bool = True
    sigma: float = 0.0
    beside_work: bool = False
    away: dict[Hashable, Offloaded] = field(default_factory=dict)

    def put_away(self, name: Hashable, x: Tensor) -> Tensor | Offloaded:
        """A copy to be kept, as ``own_copy`` makes one, for a large tensor that only ``brought`` reads.

        Where copies may run beside a card's work, it is noted under ``name``, in place of what had that name before.
        """
        streams = streams_of(x.device) if self.beside_work and self.device == MAIN_MEMORY else None
        if streams is None:
            return self.own_copy(x)
        self.away[name] = Offloaded(x, streams)
        return self.away[name]

    def brought(self, kept: Tensor | Offloaded, device: torch.device) -> Tensor:
        """What ``put_away`` gave, as a tensor on this device."""
        return (kept.take() if isinstance(kept, Offloaded) else kept).to(device, non_blocking=True)

    def fetch(self) -> None:
        """Begins to bring back what is away, which will be asked for soon."""
        for one in self.away.values():
            one.fetch()

    def own_copy(self, x: Tensor) -> Tensor:
        """A copy to be kept, where x is or on ``device``; in pinned memory, where that lets it run beside the work."""
        if self.device is None or self.device == x.device:
            return x.clone()
        if self.device.type == "cpu" and x.device.type == "cuda":
            return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
        return x.to(self.device, copy=True)


@dataclass(frozen=True)
class FrameLayout:
    """Rows ``(b f) ...`` of one UNet call, in which every clip under every conditioning holds the same ``f`` frames.

    ``batch`` is b.  ``positions`` count from the clip's first frame, 0, in the order of the f rows; ``clip_of`` numbers
    the clip of each row and differs among them only where a context window of the host covers several clips.

    ``finished``: so many of the f rows, from the first on, are frames that are there already, nearly without noise.
    Each row after them is a frame in the making: it sees the finished frames before it and itself, and no other in the
    making.  With 0, all rows are of one kind.

    ``negative``: for each of the b, whether guidance leads away from it; empty where none is known to be.
    """

    batch: int
    positions: tuple[int, ...]
    clip_of: tuple[int, ...]
    finished: int = 0
    negative: tuple[bool, ...] = ()

    @classmethod
    def whole(cls, batch: int, frames: int) -> "FrameLayout":
        """The layout of ``batch`` clips, each of so many frames and there from its first frame on."""
        return cls(batch, tuple(range(frames)), (0,) * frames)

    @classmethod
    def given_finished(cls, batch: int, frames: int) -> "FrameLayout":
        """The layout of ``batch`` clips of so many frames, with each clip there twice: finished, then in the making.

        So all its frames are trained in one call, each as it is sampled frame after frame.
        """
        return cls(batch, (*range(frames), *range(frames)), (0,) * (2 * frames), finished=frames)

    @property
    def frames(self) -> int:
        """Frames of each clip, f."""
        return len(self.positions)

    def adaptor_rows(self, trained_frames: int) -> tuple[int, ...]:
        """The row of S and B for each row of the batch, ``(b f)``: frames past the trained length use the last one."""
        return tuple(min(place, trained_frames - 1) for place in self.positions) * self.batch

    def first_rows(self, device: torch.device | None = None) -> Tensor:
        """For each row of the batch, ``(b f)``, the row of the first frame of its clip."""
        own = list(zip(self.clip_of, self.positions, range(self.frames), strict=True))
        first = {clip: row for clip, _, row in sorted(own, reverse=True)}
        rows = tuple(b * self.frames + first[clip] for b in range(self.batch) for clip in self.clip_of)
        return indices(rows, device)

    def directed_mask(self, span: int, past: tuple[int, ...] = (), device: torch.device | None = None) -> Tensor | None:
        """Where frame f may look at frame k of ``past + positions``, ``f k``; None where plain causal order says it.

        Frame i sees itself and the ``span - 1`` frames before it in its own clip (paper: lower-triangular mask; the
        span keeps a long clip like a trained one).  ``past`` and finished frames do not go together.
        """
        return directed_mask(self, span, past, device)


# The two below are asked for at every site of a call, and a copy to a device would let it wait for the processor.


@lru_cache(maxsize=CHUNKS_KEPT)
def indices(rows: tuple, device: torch.device | None) -> Tensor:
    """Whole numbers to index with, in the shape of the nested tuples, on the device; made once and kept."""
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        return torch.tensor(rows, dtype=torch.long).to(device)


@lru_cache(maxsize=CHUNKS_KEPT)
def directed_mask(layout: FrameLayout, span: int, past: tuple[int, ...], device: torch.device | None) -> Tensor | None:
    """What ``FrameLayout.directed_mask`` gives, kept for later calls."""
    with torch.inference_mode(False):
        plain = tuple(range(layout.positions[0], layout.positions[0] + layout.frames))
        if not past and layout.positions == plain and layout.frames <= span and len(set(layout.clip_of)) == 1:
            return None
        clip = torch.tensor(layout.clip_of)
        query = torch.tensor(layout.positions)
        key = torch.tensor(past + layout.positions)
        key_clip = torch.cat([torch.full((len(past),), layout.clip_of[0]), clip])
        distance = query[:, None] - key[None, :]
        seen = (distance >= 0) & (distance < span) & (clip[:, None] == key_clip[None, :])
        if not layout.finished:
            return seen.to(device)
        done = torch.arange(layout.frames) < layout.finished
        seen = (seen & done[None, :] & (done[:, None] | (distance > 0))) | torch.eye(layout.frames, dtype=torch.bool)
        return seen.to(device)
