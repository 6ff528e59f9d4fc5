"""Cross-frame attention: the image model's own self-attention, over earlier frames' tokens too; nothing is trained.

Axes: b clips or conditionings of a batch, f frames of each, t tiles of a frame (1 unless another node cuts it), p
positions, c channels; g frames done together, s frames seen, n = b f t rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from .frame_layout import FrameLayout, KeptFrames, indices

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Rule = Literal["first and previous", "first", "last"]
# Queries of one attention call: enough to fill a GPU, few enough that the gathered keys and values stay small.
MOST_QUERIES = 16_384


@dataclass(frozen=True)
class LookBack:
    """The first frame, that and the one before, or the ``last`` frames before; checks itself, raises ValueError."""

    rule: Rule = "first and previous"
    last: int = 2

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"look_back must be one of {', '.join(get_args(Rule))}; found {self.rule!r}.")
        if self.last < 1:
            raise ValueError(f"last_frames must be 1 or more, found {self.last}.")

    def most(self, earlier: int) -> int:
        """How many frames are looked at where this many lie before."""
        return len(self.chosen(range(earlier)))

    def chosen(self, positions: Sequence[int]) -> list[int]:
        """Those of these positions that a frame behind all of them looks at: indices, in the order of the clip."""
        order = sorted(range(len(positions)), key=positions.__getitem__)
        if self.rule == "last":
            return order[-self.last :]
        return order[:1] if self.rule == "first" or len(order) < 2 else [order[0], order[-1]]


@lru_cache(maxsize=16)  # asked for at every site of a call
def seen_frames(look_back: LookBack, layout: FrameLayout, past: tuple[int, ...] = ()) -> tuple[tuple[int, ...], ...]:
    """For each frame of a clip, the frames of ``past + positions`` whose tokens it reads: itself, then the chosen.

    Only frames that lie before it in its own clip and that are there; where the clip's first frame is not, as in a
    window of the host, the first one that is takes its place.
    """
    positions = (*past, *layout.positions)
    clips = (*[layout.clip_of[0]] * len(past), *layout.clip_of)
    seen = []
    for own in range(len(past), len(positions)):
        earlier = [i for i, place in enumerate(positions) if clips[i] == clips[own] and place < positions[own]]
        seen.append((own, *(earlier[i] for i in look_back.chosen([positions[i] for i in earlier]))))
    return tuple(seen)


@dataclass
class CrossFrameKvCache(KeptFrames):
    """Keys and values of the frames that later ones may look at, ``f p c``."""

    k: Tensor | None = None
    v: Tensor | None = None

    def in_front_of(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f t p c -> f t p c, with the frames before in front."""
        if self.k is None:
            return k, v
        olds = (rearrange(x, "f (t p) c -> f t p c", t=k.shape[1]) for x in (self.k, self.v))
        return tuple(torch.cat([old.to(new), new]) for old, new in zip(olds, (k, v), strict=True))

    def keep(self, look_back: LookBack, positions: tuple[int, ...], k: Tensor, v: Tensor) -> None:
        """Remembers what a later frame may look at; positions has f entries, k and v are ``f t p c``."""
        if not self.keeps:
            return
        kept = look_back.chosen(positions)
        self.positions = tuple(positions[i] for i in kept)
        rows = indices(tuple(kept), k.device)
        self.k, self.v = (self.own_copy(rearrange(x[rows], "f t p c -> f (t p) c")) for x in (k, v))


def cross_frame_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: FrameLayout,
    look_back: LookBack,
    attention: Attention,
    strength: float = 1.0,
    past: Sequence[CrossFrameKvCache] = (),
) -> Tensor:
    """``(1 - s) Attn(q_i, k_i, v_i) + s Attn(q_i, [k_i, k_j, ...], [v_i, v_j, ...])``, j the frames that i looks at.

    n p c -> n p c; ``attention`` is the host's own.  A frame that looks at none is bit for bit what it is alone.
    ``past``, if any, has one entry for each b: its frames are seen, these added.  Another node may have cut the frames
    into tiles, with keys and values cut along or left whole.
    """
    b, f = layout.batch, layout.frames
    tiles = len(q) // (b * f)
    seen = seen_frames(look_back, layout, past[0].positions if past else ())
    alone = [len(frames) == 1 for frames in seen]
    plain = strength != 1 or all(alone) or (any(alone) and rounds_by_batch(q))
    out = attention(q, k, v) if plain else torch.empty_like(q)
    read_here = [i for i in range(f) if not (plain and alone[i])]
    cut = tiles * b * f // len(k)  # tiles of a frame that its row of k and v still holds
    keys, values = (rearrange(x, "(b f r) (s p) c -> b f (r s) p c", b=b, f=f, s=cut) for x in (k, v))
    queries, results = (rearrange(x, "(b f t) p c -> b f t p c", b=b, f=f) for x in (q, out))
    for row in range(b):
        all_k, all_v, positions = keys[row], values[row], layout.positions
        if past:
            all_k, all_v = past[row].in_front_of(all_k, all_v)
            positions = past[row].positions + positions
        for frames in groups(read_here, seen, tiles * q.shape[1]):
            own = indices(tuple(frames), q.device)
            sees = indices(tuple(seen[i] for i in frames), q.device)
            read = _frames(queries[row, own], all_k, all_v, sees, attention)
            results[row, own] = read if strength == 1 else torch.lerp(results[row, own], read, strength)
        if past:
            past[row].keep(look_back, positions, all_k, all_v)
    return out


def _frames(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, attention: Attention) -> Tensor:
    """g t p c -> g t p c, for frames that see equally many: ``sees``, g s, their own in front."""
    tokens = (rearrange(x[sees], "g s t p c -> (g t) (s p) c") for x in (k, v))
    return rearrange(attention(rearrange(q, "g t p c -> (g t) p c"), *tokens), "(g t) p c -> g t p c", g=len(q))


def rounds_by_batch(q: Tensor) -> bool:
    """Whether attention may round otherwise in a batch of another size: float32 on a processor does not.

    Where it may, a frame that looks at none gets the very call that there is without us, which costs a plain attention.
    """
    return q.dtype is not torch.float32 or q.device.type != "cpu"


def groups(frames: Sequence[int], seen: Sequence[Sequence[int]], queries: int) -> Iterator[list[int]]:
    """Those of the frames that see equally many, as many together as the queries of one attention call allow."""
    most = max(1, MOST_QUERIES // queries)
    for count in sorted({len(seen[i]) for i in frames}):
        alike = [i for i in frames if len(seen[i]) == count]
        for start in range(0, len(alike), most):
            yield alike[start : start + most]
