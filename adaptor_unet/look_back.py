"""Which earlier frames of its clip a frame looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from .frame_layout import FrameLayout

Rule = Literal["first and previous", "first", "last"]


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
    """For each frame of a run, the frames of ``past + positions`` whose tokens it reads: itself, then the chosen.

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
