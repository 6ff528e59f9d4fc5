"""The noise levels at which an effect acts, and that of a call."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NoiseLevels:
    """A part of sampling, the noise levels sigma ``start`` down to ``end``, both included; all by default."""

    start: float = math.inf
    end: float = 0.0

    def __contains__(self, sigma: float) -> bool:
        return self.end <= sigma <= self.start


def sigma_where_it_counts(sigmas: Tensor | None, levels: Iterable[NoiseLevels]) -> float | None:
    """The noise level of a call; None if the host does not say, and where effects act at all of them.

    A GPU waits while it is read, so only if need be.
    """
    if sigmas is None or all(own == NoiseLevels() for own in levels):
        return None
    return float(sigmas.flatten()[0])
