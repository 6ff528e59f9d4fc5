"""What every node that acts while the model samples can be told: how strongly, on which clips, from when to when."""

import math
from dataclasses import dataclass
from typing import ClassVar

from comfy.model_patcher import ModelPatcher


@dataclass(frozen=True)
class NoiseLevels:
    """From sigma ``start`` down to ``end``, both included."""

    start: float = math.inf
    end: float = 0.0

    def __contains__(self, sigma: float) -> bool:
        return self.end <= sigma <= self.start


def noise_levels(model: ModelPatcher, start_percent: float, end_percent: float) -> NoiseLevels:
    """The noise levels of this model between two points of sampling.  Raises ValueError unless they lie in 0 to 1."""
    if not (0.0 <= start_percent <= 1.0 and 0.0 <= end_percent <= 1.0):
        raise ValueError(f"start_percent and end_percent must lie in 0 to 1, found {start_percent} and {end_percent}.")
    sampling = model.get_model_object("model_sampling")
    start, end = (float(sampling.percent_to_sigma(percent)) for percent in (start_percent, end_percent))
    return NoiseLevels(start if start_percent > 0 else math.inf, end)


@dataclass(frozen=True, kw_only=True)
class Acting:
    """Settings that these nodes share; raises ValueError if unusable.

    frames_per_clip: 0 for the whole batch.
    """

    node: ClassVar[str]
    strength: float = 1.0
    frames_per_clip: int = 0
    levels: NoiseLevels = NoiseLevels()

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ValueError(f"strength of {self.node} must be a finite number, found {self.strength}.")
        if self.frames_per_clip < 0:
            raise ValueError(f"frames_per_clip of {self.node} must be 0 or more, found {self.frames_per_clip}.")

    def acts_at(self, sigma: float | None) -> bool:
        """Whether it acts at a noise level, None for unknown; at strength 0 never, so the image model stays exact."""
        return self.strength != 0 and (sigma is None or sigma in self.levels)


@dataclass(frozen=True, kw_only=True)
class PartlyActing(Acting):
    """Of which there is a whole and no more: strength 0 to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength of {self.node} must lie in 0 to 1, found {self.strength}.")
