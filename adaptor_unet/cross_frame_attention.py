"""Cross-frame attention: the image model's own self-attention, over earlier frames' tokens too; nothing is trained.

Axes: b clips or conditionings of a batch, f frames of each, t tiles of a frame (1 unless another node cuts it), p
positions, c channels; m frames of a clip that are there, kept ones in front; g frames done together, s frames seen,
n = b f t rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from .frame_layout import CHUNKS_KEPT, FrameLayout, KeptFrames, indices
from .offload import Offloaded

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Rule = Literal["first and previous", "first", "last"]
# Queries of one attention call: enough to fill it, few enough that the gathered keys and values stay small. Of a GPU
# those of 16 frames of 64x64 latents, for which the block's feed-forward layers need more memory.
MOST_QUERIES = 16_384
MOST_QUERIES_GPU = 65_536


@dataclass(frozen=True)
class LookBack:
    """Which earlier frames a frame looks at: the clip's first, that and the one before, or the ``last`` ones before.

    Raises ValueError for settings that cannot work.
    """

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
        """Which of the frames at these positions are looked at by a frame behind all of them.

        Given as indices into ``positions``, in the order of the clip.
        """
        order = sorted(range(len(positions)), key=positions.__getitem__)
        if self.rule == "last":
            return order[-self.last :]
        return order[:1] if self.rule == "first" or len(order) < 2 else [order[0], order[-1]]


@lru_cache(maxsize=CHUNKS_KEPT)  # asked for at every site of a call
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

    k: Tensor | Offloaded | None = None
    v: Tensor | Offloaded | None = None

    def before(self, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The kept keys and values, ``f t p c``, as those of a call are; none if nothing is kept."""
        if self.k is None:
            return [], []
        olds = (self.brought(x, k.device) for x in (self.k, self.v))
        return tuple([rearrange(x, "f (t p) c -> f t p c", t=k.shape[1]).to(k)] for x in olds)

    def keep(self, look_back: LookBack, positions: tuple[int, ...], k: Tensor, v: Tensor) -> None:
        """Remembers what a later frame may look at; positions has f entries, k and v are ``f t p c``."""
        if not self.keeps:
            return
        kept = look_back.chosen(positions)
        self.positions = tuple(positions[i] for i in kept)
        rows = indices(tuple(kept), k.device)
        own = (rearrange(x[rows], "f t p c -> f (t p) c") for x in (k, v))
        self.k, self.v = (self.put_away(name, x) for name, x in zip("kv", own, strict=True))


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
    kept = past[0].positions if past else ()
    seen = seen_frames(look_back, layout, kept)
    alone = [len(frames) == 1 for frames in seen]
    plain = strength != 1 or all(alone) or (any(alone) and rounds_by_batch(q))
    cut = tiles * b * f // len(k)  # tiles of a frame that its row of k and v still holds
    keys, values = (rearrange(x, "(b f r) (s p) c -> b f (r s) p c", b=b, f=f, s=cut) for x in (k, v))
    keys, values = with_past(keys, values, past, look_back, layout.positions)
    out = attention(q, k, v) if plain else torch.empty_like(q)
    queries, results = (rearrange(x, "(n t) p c -> n t p c", t=tiles) for x in (q, out))
    most = max(1, (MOST_QUERIES if q.device.type == "cpu" else MOST_QUERIES_GPU) // (tiles * q.shape[1]))
    for own, sees in read_together(seen, b, len(keys) // b, most, plain):
        rows = picked(own, q.device)
        read = _frames(queries[rows], keys, values, sees, attention)
        if len(own) == b * f and strength == 1:
            return rearrange(read, "n t p c -> (n t) p c")
        results[rows] = read if strength == 1 else torch.lerp(results[rows], read, strength)
    return out


def with_past(
    k: Tensor, v: Tensor, past: Sequence[CrossFrameKvCache], look_back: LookBack, positions: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """b f t p c -> (b m) t p c, the kept frames of each clip in front; what later frames may look at is kept."""
    pieces: tuple[list[Tensor], list[Tensor]] = ([], [])
    for row, entry in enumerate(past):
        for of_all, old, new in zip(pieces, entry.before(k[row], v[row]), (k[row], v[row]), strict=True):
            of_all += [*old, new]
    if len(pieces[0]) > len(past):
        keys, values = (torch.cat(x) for x in pieces)
    else:
        keys, values = (rearrange(x, "b f t p c -> (b f) t p c") for x in (k, v))
    for entry, *own in zip(
        past, *(rearrange(x, "(b m) t p c -> b m t p c", b=len(k)) for x in (keys, values)), strict=False
    ):
        entry.keep(look_back, entry.positions + positions, *own)
    return keys, values


def _frames(q: Tensor, k: Tensor, v: Tensor, sees: tuple[tuple[int, ...], ...], attention: Attention) -> Tensor:
    """g t p c -> g t p c, for frames that see equally many: ``sees``, g s, rows of k and v, their own in front."""
    tokens = (seen_tokens(x, sees) for x in (k, v))
    return rearrange(attention(rearrange(q, "g t p c -> (g t) p c"), *tokens), "(g t) p c -> g t p c", g=len(q))


def seen_tokens(x: Tensor, sees: tuple[tuple[int, ...], ...]) -> Tensor:
    """(b m) t p c -> (g t) (s p) c: keys or values that each of g frames reads.

    Gathered by one copy; where each frame reads what lies side by side, and the next frame begins one further, they are
    read where they are (in their own order, which attention does not know).
    """
    if follows(sees):
        first = min(sees[0])
        side_by_side = x.unfold(0, len(sees[0]), 1)[first : first + len(sees)]
        return rearrange(side_by_side, "g t p c s -> (g t) (s p) c")
    return rearrange(x[indices(sees, x.device)], "g s t p c -> (g t) (s p) c")


def picked(rows: tuple[int, ...], device: torch.device) -> slice | Tensor:
    """These rows, to index with; where they lie side by side, so that nothing is copied."""
    if rows == tuple(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return indices(rows, device)


def rounds_by_batch(q: Tensor) -> bool:
    """Whether attention may round otherwise in a batch of another size: float32 on a processor does not.

    Where it may, a frame that looks at none gets the very call that there is without us, which costs a plain attention.
    """
    return q.dtype is not torch.float32 or q.device.type != "cpu"


@lru_cache(maxsize=64)  # asked for at every site of a call
def read_together(
    seen: tuple[tuple[int, ...], ...], batch: int, there: int, most: int, plain: bool
) -> tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...]:
    """The attention calls of all clips: rows of frames, (b f), and the rows, (b m), that each of them reads.

    ``there``: m.  At most ``most`` frames together, which see equally many; and, where all of these see what lies side
    by side, such as follow each other.  With ``plain``, frames that see but themselves are done already.
    """
    f, calls = len(seen), []
    for count in sorted(set(map(len, seen)) - ({1} if plain else set())):
        alike = [
            (b * f + i, tuple(b * there + j for j in frames))
            for b in range(batch)
            for i, frames in enumerate(seen)
            if len(frames) == count
        ]
        runs = [alike]
        if all(follows((frames,)) for _, frames in alike):
            begins = {own: min(frames) - place for place, (own, frames) in enumerate(alike)}
            runs = [list(run) for _, run in groupby(alike, key=lambda one: begins[one[0]])]
        for run in runs:
            calls += [tuple(zip(*run[start : start + most], strict=True)) for start in range(0, len(run), most)]
    return tuple(calls)


def follows(sees: tuple[tuple[int, ...], ...]) -> bool:
    """Whether each frame reads rows that lie side by side, and the next frame those a row further."""
    first, count = min(sees[0]), len(sees[0])
    return all(sorted(frames) == list(range(first + i, first + i + count)) for i, frames in enumerate(sees))
