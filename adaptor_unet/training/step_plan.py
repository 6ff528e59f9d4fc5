"""Which clips a step sees and what chance gives it, as a function of seed and step alone.

Nothing is carried from step to step, so a run resumed at a step goes on exactly as if it had never stopped, and the
same step split over several processes sees the same noise.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from .settings import TrainingSettings

# What a step sees: clips, their frames as stills with the adaptor, or those without it.
Sees = Literal["clips", "stills", "base_stills"]


@dataclass(frozen=True)
class PlannedClip:
    """One clip of a step.  ``item`` numbers the clip in its set; all else that chance decides comes from ``seed``.

    ``taught``: whether it is one of the teacher's.
    """

    item: int
    seed: int
    taught: bool = False

    def generator(self) -> torch.Generator:
        """A generator of the random numbers of this clip, the same at each call."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class StepPlan:
    """What a step ``sees``, and its batch: the clips of all processes together."""

    sees: Sees
    batch: tuple[PlannedClip, ...]


def plan_step(
    step: int, settings: TrainingSettings, groups: tuple[int, ...], teacher_share: float | None = None
) -> StepPlan:
    """The plan of a step, counted from 0.  ``groups``: how many items lie together on disk, group after group.

    With a ``teacher_share`` the last group is the teacher's, from which that share of the clips comes; all of them,
    where there is no other group.
    """
    chance = torch.rand(1, generator=torch.Generator().manual_seed(seed_from("kind", settings.seed, step))).item()
    sees: Sees = "clips"
    if chance < settings.still_share + settings.base_still_share:
        sees = "stills" if chance < settings.still_share else "base_stills"
    own, teachers = (groups, ()) if teacher_share is None else (groups[:-1], groups[-1:])
    share = 0.0 if teacher_share is None else teacher_share if own else 1.0
    batch = []
    for place in range(step * settings.batch, (step + 1) * settings.batch):
        before = math.floor(place * share)  # so many of the clips until now were the teacher's
        taught = math.floor((place + 1) * share) > before
        item = nth_item(teachers, settings.seed, before) if taught else nth_item(own, settings.seed, place - before)
        seed = seed_from("draw", settings.seed, place)
        batch.append(PlannedClip(item + taught * sum(own), seed, taught))
    return StepPlan(sees, tuple(batch))


def nth_item(groups: tuple[int, ...], seed: int, place: int) -> int:
    """The item that is drawn at that place, counted from 0: epoch after epoch, each item once."""
    epoch, within = divmod(place, sum(groups))
    return epoch_order(groups, seed, epoch)[within]


def draw_timesteps(settings: TrainingSettings, levels: int, frames: int, generator: torch.Generator) -> Tensor:
    """A timestep for each frame of a clip, ``f``, below ``levels``, as ``frame_noise_levels`` wants them.

    ``high_noise_share`` of the draws, of a clip or of its frames, come from the noisier half.  A clip of one frame has
    no nearly clean frame: none comes after it.
    """
    each = settings.frame_noise_levels != "one_a_clip"
    timesteps = torch.randint(levels, (frames if each else 1,), generator=generator)
    if settings.high_noise_share:
        noisier = torch.rand(len(timesteps), generator=generator) < settings.high_noise_share
        timesteps = torch.where(noisier, (levels + timesteps) // 2, timesteps)
    if settings.frame_noise_levels == "clean_context" and frames > 1:
        given = torch.rand(1, generator=generator) < settings.clean_context_share
        clean = draw_context(settings, levels, frames, generator)
        place = torch.randint(1, frames, (1,), generator=generator)
        timesteps = torch.where(given & (torch.arange(frames) < place), clean, timesteps)
    return timesteps.expand(frames)


def draw_context(settings: TrainingSettings, levels: int, frames: int, generator: torch.Generator) -> Tensor:
    """Random timesteps for frames that are nearly clean, ``f``."""
    return torch.randint(min(settings.context_timesteps, levels), (frames,), generator=generator)


@lru_cache(maxsize=4)
def epoch_order(groups: tuple[int, ...], seed: int, epoch: int) -> list[int]:
    """All items once: groups in random order, each group shuffled in itself, so that disks read on where they are."""
    generator = torch.Generator().manual_seed(seed_from("order", seed, epoch))
    starts = [0, *accumulate(groups)]
    order = []
    for group in torch.randperm(len(groups), generator=generator).tolist():
        order += (starts[group] + torch.randperm(groups[group], generator=generator)).tolist()
    return order


def seed_from(*parts: object) -> int:
    """A seed that depends on all parts and on nothing else, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
