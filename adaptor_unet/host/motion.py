"""One Apply node's share of a model: an adaptor and how it is to act."""

import math
from dataclasses import dataclass, field

from ..adaptor import VideoAdaptor


@dataclass(frozen=True)
class Motion:
    """Settings of one Apply node.  Acts while the noise level is between the two sigmas; raises ValueError if unusable.

    fps: frames a second, one for all runs or one for each (in training).  frames_per_clip: 0 for the whole batch.
    """

    adaptor: VideoAdaptor = field(repr=False)
    strength: float = 1.0
    fps: float | tuple[float, ...] = 8.0
    frames_per_clip: int = 0
    sigma_start: float = math.inf
    sigma_end: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ValueError(f"strength of Apply MagicVideo must be a finite number, found {self.strength}.")
        if not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise ValueError(f"fps of Apply MagicVideo must be a finite number above 0, found {self.fps}.")
        if self.frames_per_clip < 0:
            raise ValueError(f"frames_per_clip of Apply MagicVideo must be 0 or more, found {self.frames_per_clip}.")

    @property
    def rates(self) -> tuple[float, ...]:
        return self.fps if isinstance(self.fps, tuple) else (self.fps,)

    def acts_at(self, sigma: float | None) -> bool:
        """Whether it acts at a noise level, None for unknown; at strength 0 never, so the image model stays exact."""
        return self.strength != 0 and (sigma is None or self.sigma_end <= sigma <= self.sigma_start)
