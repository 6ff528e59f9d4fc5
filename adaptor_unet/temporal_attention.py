"""Directed temporal attention, MagicVideo "spatial and directed temporal attention".

Axes: b clips or conditionings of a batch, f frames of each, p positions, h heads, d channels of a head, c = h d
channels, k frames looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .frame_layout import FrameLayout, KeptFrames
from .rotary import rotate

# Rows (positions times heads) of one attention call: more than 65,535 is refused by some GPU back ends, and on a
# processor a small piece stays in its cache and in memory that is already mapped.
MOST_ROWS = 65_535
MOST_ROWS_CPU = 2_048
# Up to this many frames, the formula as written is twice as fast as the fused attention on a processor, and on a GPU
# where there are many rows: over 16 frames of 64x64 latents an H100 took 0.32 ms for it and 0.75 for the fused one, and
# the fused one was the faster at 32x32 and 16x16.
FEW_FRAMES = 64
MANY_ROWS_GPU = 16_384


class Projection(nn.Module):
    """``W z``, or of the given rank ``U D z``."""

    def __init__(
        self,
        channels: int,
        rank: int = 0,
        bias: bool = False,
        operations: type | ModuleType = nn,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.down = operations.Linear(channels, rank, bias=False, device=device) if rank else nn.Identity()
        self.up = operations.Linear(rank or channels, channels, bias=bias, device=device)

    def forward(self, z: Tensor) -> Tensor:
        """... c -> ... c"""
        return self.up(self.down(z))


@dataclass
class KvCache(KeptFrames):
    """KV cache: keys and values of the frames before, at one site and of one clip; the attention itself fills it.

    ``pieces`` maps the first position p of a piece to its keys and values, ``k p c`` each: the kept frames in front,
    and room for those of a call behind them, so that a step of sampling copies none.  A ``FrameCache`` holds it.
    """

    pieces: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def seen_with(self, start: int, k: Tensor, v: Tensor, span: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the kept frames and, behind them, of the present ones, ``f p c`` each, of a piece.

        Keeps what the next frame may see: the last ``span - 1`` frames.
        """
        if not self.keeps and not self.positions:
            return k, v
        seen = self._joined(start, k, v)
        if self.keeps:
            first = max(0, len(seen[0]) - span + 1)
            self.pieces[start] = tuple(self.put_away((start, i), x[first:]) for i, x in enumerate(seen))
        return seen

    def end_call(self, positions: tuple[int, ...], span: int) -> None:
        """Notes which frames are kept now; to be called behind all pieces of a call, with its frames' positions."""
        if self.keeps:
            seen = self.positions + positions
            self.positions = seen[max(0, len(seen) - span + 1) :]

    def _joined(self, start: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        kept = len(self.positions)
        if start not in self.pieces:
            return k, v
        joined = []
        for place, new in enumerate((k, v)):
            old = self.pieces[start][place]
            if self.device is not None or self.keeps:
                joined.append(torch.cat([self.brought(old, new.device)[:kept], new]))
                continue
            if len(old) < kept + len(new) or old.device != new.device:
                room = new.new_empty(kept + len(new), *old.shape[1:], dtype=old.dtype)
                room[:kept] = old[:kept]
                self.pieces[start] = tuple(room if i == place else x for i, x in enumerate(self.pieces[start]))
                old = room
            old[kept : kept + len(new)] = new
            joined.append(old[: kept + len(new)])
        return tuple(joined)


class DirectedTemporalAttention(nn.Module):
    """``T-Attn(z) = softmax(Q K^T / sqrt(d) + M) V`` over the frames of each position, M = 0 up to one's own frame.

    M stands before the softmax: behind it, later frames would stay in the normaliser and the attention would not be
    causal.  Adds nothing until trained, because the output projection starts at zero.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        span: int = 16,
        rank: int = 0,
        rotary: bool = False,
        operations: type | ModuleType = nn,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.span, self.rotary = heads, span, rotary
        self.to_q = Projection(channels, rank, operations=operations, device=device)
        self.to_k = Projection(channels, rank, operations=operations, device=device)
        self.to_v = Projection(channels, rank, operations=operations, device=device)
        self.to_out = Projection(channels, rank, bias=True, operations=operations, device=device)
        for parameter in self.to_out.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor, layout: FrameLayout, past: Sequence[KvCache] = ()) -> Tensor:
        """(b f) p c -> (b f) p c.  ``past``, if any, has one entry for each b: its frames are seen, these added."""
        clips = rearrange(z, "(b f) p c -> b f p c", b=layout.batch)
        out = [self._clip(clip, layout, past[i] if past else None) for i, clip in enumerate(clips)]
        return out[0] if len(out) == 1 else torch.cat(out)

    def _clip(self, z: Tensor, layout: FrameLayout, past: KvCache | None) -> Tensor:
        """f p c -> f p c, piece of positions by piece.  A clip at a time, so that heads are a view, not a copy."""
        mask = layout.directed_mask(self.span, past.positions if past else (), z.device)
        step = max(1, (MOST_ROWS_CPU if z.device.type == "cpu" else MOST_ROWS) // self.heads)
        starts = range(0, z.shape[1], step)
        out = [self._piece(z[:, start : start + step], layout, mask, past, start) for start in starts]
        if past is not None:
            past.end_call(layout.positions, self.span)
        return out[0] if len(out) == 1 else torch.cat(out, dim=1)

    def _piece(self, z: Tensor, layout: FrameLayout, mask: Tensor | None, past: KvCache | None, start: int) -> Tensor:
        """f p c -> f p c"""
        q, k, v = self.to_q(z), self.to_k(z), self.to_v(z)
        if self.rotary:
            q, k = (rotate(x, layout.positions, self.heads) for x in (q, k))
        if past is not None:
            k, v = past.seen_with(start, k, v, self.span)
        q, k, v = (rearrange(x, "f p (h d) -> p h f d", h=self.heads) for x in (q, k, v))
        seen = attend(q, k, v, mask)
        return self.to_out(rearrange(seen, "p h f d -> f p (h d)"))


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None, two_way: bool = False
) -> Tensor:
    """``softmax(s Q K^T + M) V``: ``p h f d``, ``p h k d`` twice -> ``p h f d``; ``scale`` s, 1 / sqrt(d) by default.

    The mask, ``f k``, says what a frame sees; without one it sees itself and those before, and all if ``two_way``.
    """
    directed = mask is None and not two_way
    many = q.device.type == "cpu" or q.shape[0] * q.shape[1] >= MANY_ROWS_GPU
    if not many or k.shape[-2] > FEW_FRAMES:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=directed, scale=scale)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT
    if directed:
        scores = scores.masked_fill(later_frames(q.shape[-2], q.device), -torch.inf)
    elif mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1) @ v


@lru_cache(maxsize=16)  # asked for at every site of a call
def later_frames(frames: int, device: torch.device) -> Tensor:
    """Which frames come after each one, ``f k``."""
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        return torch.ones(frames, frames, dtype=torch.bool, device=device).triu(1)
