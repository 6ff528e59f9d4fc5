"""One Apply node's share of a model: an adaptor and how it is to act."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ..adaptor import VideoAdaptor
from .acting import Acting


@dataclass(frozen=True, kw_only=True)
class Motion(Acting):
    """Settings of one Apply node; raises ValueError if unusable.

    fps: frames a second, one for all runs or one for each (in training).
    """

    node: ClassVar[str] = "Apply MagicVideo"
    adaptor: VideoAdaptor = field(repr=False)
    fps: float | tuple[float, ...] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise ValueError(f"fps of Apply MagicVideo must be a finite number above 0, found {self.fps}.")

    @property
    def shared_noise(self) -> float:
        """As the adaptor was trained; none at strength 0, which leaves the image model as it was."""
        return self.adaptor.config.shared_noise if self.strength else 0.0

    @property
    def rates(self) -> tuple[float, ...]:
        return self.fps if isinstance(self.fps, tuple) else (self.fps,)
