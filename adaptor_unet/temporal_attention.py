"""Directed temporal attention, MagicVideo "spatial and directed temporal attention".

Axes: b clips or conditionings of a batch, f frames of each, p positions, h heads, d channels of a head, c = h d
channels, k frames looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .frame_layout import FrameLayout

# Rows (positions times heads) of one attention call: more than 65,535 is refused by some GPU back ends, and on a
# processor a small piece stays in its cache and in memory that is already mapped.
MOST_ROWS = 65_535
MOST_ROWS_CPU = 2_048
# Up to this many frames, a processor is twice as fast with the formula as written than with the fused attention.
FEW_FRAMES = 64


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
class KvCache:
    """Keys and values of the frames before, at one site and of one clip; the attention itself fills it.

    ``positions`` has f entries; ``pieces`` maps the first position of a piece to its keys and values, ``f p c`` each.
    They stay on the device they were made on, or wait on ``device``.
    """

    positions: tuple[int, ...] = ()
    pieces: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    device: torch.device | None = None

    def extend(self, start: int, k: Tensor, v: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Past and present keys and values of a piece; remembers the last ``kept`` frames of them."""
        if start in self.pieces:
            k, v = (torch.cat([old.to(new.device), new]) for old, new in zip(self.pieces[start], (k, v), strict=True))
        first, where = max(0, len(k) - kept), self.device or k.device
        self.pieces[start] = (k[first:].to(where, copy=True), v[first:].to(where, copy=True))
        return k, v


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
        mask = layout.directed_mask(self.span, past[0].positions if past else ())
        mask = mask if mask is None else mask.to(z.device)
        clips = rearrange(z, "(b f) p c -> b f p c", b=layout.batch)
        out = [self._clip(clip, layout, mask, past[i] if past else None) for i, clip in enumerate(clips)]
        return out[0] if len(out) == 1 else torch.cat(out)

    def _clip(self, z: Tensor, layout: FrameLayout, mask: Tensor | None, past: KvCache | None) -> Tensor:
        """f p c -> f p c, piece of positions by piece.  A clip at a time, so that heads are a view, not a copy."""
        step = max(1, (MOST_ROWS_CPU if z.device.type == "cpu" else MOST_ROWS) // self.heads)
        starts = range(0, z.shape[1], step)
        out = [self._piece(z[:, start : start + step], layout, mask, past, start) for start in starts]
        if past is not None:
            seen = past.positions + layout.positions
            past.positions = seen[max(0, len(seen) - self.span + 1) :]
        return out[0] if len(out) == 1 else torch.cat(out, dim=1)

    def _piece(self, z: Tensor, layout: FrameLayout, mask: Tensor | None, past: KvCache | None, start: int) -> Tensor:
        """f p c -> f p c"""
        q, k, v = self.to_q(z), self.to_k(z), self.to_v(z)
        if self.rotary:
            q, k = (rotate(x, layout.positions, self.heads) for x in (q, k))
        if past is not None:
            k, v = past.extend(start, k, v, self.span - 1)
        q, k, v = (rearrange(x, "f p (h d) -> p h f d", h=self.heads) for x in (q, k, v))
        seen = attend(q, k, v, mask)
        return self.to_out(rearrange(seen, "p h f d -> f p (h d)"))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """``softmax(Q K^T / sqrt(d) + M) V``: ``p h f d``, ``p h k d`` twice -> ``p h f d``; mask ``f k`` or None."""
    if q.device.type != "cpu" or k.shape[-2] > FEW_FRAMES:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril() if mask is None else mask
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ v


def rotate(x: Tensor, positions: tuple[int, ...], heads: int) -> Tensor:
    """Rotary encoding of the frame position, f p c -> f p c: a score then depends on the distance of two frames only.

    Channel pairs of a head turn by ``position * 10000 ** (-2 i / d)`` (RoFormer, Su et al. 2021).
    """
    even, odd = rearrange(x, "f p (h d two) -> two f p h d", h=heads, two=2).unbind()
    pairs = even.shape[-1]
    rate = 10_000 ** (-torch.arange(pairs, device=x.device) / pairs)
    angle = torch.tensor(positions, device=x.device)[:, None, None, None] * rate
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos])
    return rearrange(turned, "two f p h d -> f p (h d two)")
