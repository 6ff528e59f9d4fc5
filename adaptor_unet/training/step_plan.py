"""Which clips a step sees and what chance gives it, as a function of seed and step alone.

Nothing is carried from step to step, so a run resumed at a step goes on exactly as if it had never stopped, and the
same step split over several processes sees the same noise.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import torch

from .settings import TrainingSettings

Kind = Literal["clips", "stills", "base_stills"]


@dataclass(frozen=True)
class Draw:
    """One clip of a step.  ``item`` numbers the clip in its set; all else that chance decides comes from ``seed``."""

    item: int
    seed: int

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class StepPlan:
    """``kind`` of a step, and the draws of all processes together."""

    kind: Kind
    draws: tuple[Draw, ...]


def plan_step(step: int, settings: TrainingSettings, groups: tuple[int, ...]) -> StepPlan:
    """The plan of a step, counted from 0.  ``groups``: sizes of the runs of items that lie together on disk."""
    chance = torch.rand(1, generator=torch.Generator().manual_seed(number("kind", settings.seed, step))).item()
    kind: Kind = "clips"
    if chance < settings.still_share + settings.base_still_share:
        kind = "stills" if chance < settings.still_share else "base_stills"
    length = sum(groups)
    draws = []
    for place in range(step * settings.batch, (step + 1) * settings.batch):
        order = epoch_order(groups, settings.seed, place // length)
        draws.append(Draw(order[place % length], number("draw", settings.seed, place)))
    return StepPlan(kind, tuple(draws))


@lru_cache(maxsize=2)
def epoch_order(groups: tuple[int, ...], seed: int, epoch: int) -> list[int]:
    """All items once, shuffled: groups in random order, and inside each its items, so that disks read in runs."""
    generator = torch.Generator().manual_seed(number("order", seed, epoch))
    starts = [0, *accumulate(groups)]
    order = []
    for group in torch.randperm(len(groups), generator=generator).tolist():
        order += (starts[group] + torch.randperm(groups[group], generator=generator)).tolist()
    return order


def number(*parts: object) -> int:
    """A seed that depends on all parts and on nothing else, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
