"""Which row of a batch is which frame of which clip.

Axes: b runs of frames in the batch, f frames in a run, k frames looked at.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameLayout:
    """A batch ``(b f) ...`` in which every run holds the same ``f`` frames.

    A run is what one conditioning gets of one clip.  ``positions`` are places in the clip, counted from 0, in the order
    of the rows; ``clip_of`` numbers the clip of each row and differs within a run only where a context window of the
    host covers several clips.

    ``finished``: so many rows at the start of a run are frames that are there already, nearly without noise.  Each row
    after them is a frame in the making: it sees the finished frames before it and itself, and no other in the making.
    With 0, all rows are of one kind.
    """

    runs: int
    positions: tuple[int, ...]
    clip_of: tuple[int, ...]
    finished: int = 0

    @classmethod
    def whole(cls, runs: int, frames: int) -> "FrameLayout":
        """Each run is one clip from its first frame on."""
        return cls(runs, tuple(range(frames)), (0,) * frames)

    @classmethod
    def given_finished(cls, runs: int, frames: int) -> "FrameLayout":
        """Each run is one clip twice: finished, then in the making.  So all its frames are trained in one call, each as
        it is sampled frame after frame."""
        return cls(runs, (*range(frames), *range(frames)), (0,) * (2 * frames), finished=frames)

    @property
    def frames(self) -> int:
        """Frames in a run, f."""
        return len(self.positions)

    def adaptor_rows(self, trained_frames: int) -> Tensor:
        """The row of S and B for each row of the batch, ``(b f)``: frames past the trained length use the last one."""
        return torch.tensor(self.positions).clamp(max=trained_frames - 1).repeat(self.runs)

    def first_rows(self) -> list[int]:
        """For each row of the batch, ``(b f)``, the row of the first frame of its clip in its run."""
        own = list(zip(self.clip_of, self.positions, range(self.frames), strict=True))
        first = {clip: row for clip, _, row in sorted(own, reverse=True)}
        return [run * self.frames + first[clip] for run in range(self.runs) for clip in self.clip_of]

    def directed_mask(self, span: int, past: tuple[int, ...] = ()) -> Tensor | None:
        """Where frame f may look at frame k of ``past + positions``, ``f k``; None where plain causal order says it.

        Frame i sees itself and the ``span - 1`` frames before it in its own clip (paper: lower-triangular mask; the
        span keeps a long clip like a trained one).  ``past`` and finished frames do not go together.
        """
        plain = tuple(range(self.positions[0], self.positions[0] + self.frames))
        if not past and self.positions == plain and self.frames <= span and len(set(self.clip_of)) == 1:
            return None
        clip = torch.tensor(self.clip_of)
        query = torch.tensor(self.positions)
        key = torch.tensor(past + self.positions)
        key_clip = torch.cat([torch.full((len(past),), self.clip_of[0]), clip])
        distance = query[:, None] - key[None, :]
        seen = (distance >= 0) & (distance < span) & (clip[:, None] == key_clip[None, :])
        if not self.finished:
            return seen
        done = torch.arange(self.frames) < self.finished
        return (seen & done[None, :] & (done[:, None] | (distance > 0))) | torch.eye(self.frames, dtype=torch.bool)
