"""AdaIN over the frames of a clip: each frame's channels get the mean and standard deviation of the first frame's.

It is the distribution adaptor computed instead of learnt (AdaIN: Huang and Belongie 2017).
Axes: b clips or conditionings of a batch, f frames of each, n = b f rows, c channels, ... positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from einops import repeat
from torch import Tensor

from .frame_layout import FrameLayout, KeptFrames

# Added to each standard deviation: where both are far below, the scale is 1.
FLAT = 1e-5
# A nearly flat channel holds nothing that a larger scale could bring out.
MOST_SCALE = 4.0
# Noise levels that differ by no more than this factor have features that can be compared.
NEAR, LEAST = 2.0, 1e-3


class FrameStatistics(NamedTuple):
    """Mean and standard deviation of each channel of each frame, ``n c`` in fp32."""

    mean: Tensor
    deviation: Tensor


def frame_statistics(z: Tensor) -> FrameStatistics:
    """Mean and standard deviation over all positions, n c ... -> n c in fp32."""
    variance, mean = torch.var_mean(z.float(), dim=tuple(range(2, z.ndim)), correction=0)
    return FrameStatistics(mean, variance.sqrt())


@dataclass
class ReferenceStatistics(KeptFrames):
    """Statistics of a clip's first frame, ``c`` each, by the noise level at which they were seen.

    These few numbers stay where they are, and are kept whenever the first frame is there.
    """

    by_level: ClassVar[bool] = True
    levels: dict[float, FrameStatistics] = field(default_factory=dict)

    def reference(self, own: FrameStatistics, positions: tuple[int, ...]) -> FrameStatistics:
        """f c -> f c: the first frame's, for frames at these positions of the clip.

        The call that holds the first frame takes it from there, and it is remembered.  Features of other noise levels
        cannot be compared, so where none near the present one was seen, each frame is its own reference.
        """
        if positions[0] == 0:
            self.levels[self.sigma] = FrameStatistics(own.mean[0].clone(), own.deviation[0].clone())
        near = min(self.levels, key=self._far, default=None)
        if near is None or self._far(near) > math.log(NEAR):
            return own
        of_first = (x.to(own.mean.device) for x in self.levels[near])  # seen on another card, may be
        return FrameStatistics(*(repeat(x, "c -> f c", f=len(positions)) for x in of_first))

    def _far(self, sigma: float) -> float:
        """How far a noise level is from the present one, as a logarithm."""
        return abs(math.log(max(sigma, LEAST) / max(self.sigma, LEAST)))


def reference_of(
    own: FrameStatistics, layout: FrameLayout, past: Sequence[ReferenceStatistics] = ()
) -> FrameStatistics:
    """n c -> n c: for each row, the statistics of the first frame of its clip.

    That is the first frame that the call holds; with ``past``, one entry for each b, the clip's very first.
    """
    if not past:
        rows = layout.first_rows(own.mean.device)
        return FrameStatistics(own.mean[rows], own.deviation[rows])
    f = layout.frames
    found = [
        entry.reference(FrameStatistics(*(x[b * f : (b + 1) * f] for x in own)), layout.positions)
        for b, entry in enumerate(past)
    ]
    return FrameStatistics(*(torch.cat(x) for x in zip(*found, strict=True)))


def adain(own: FrameStatistics, reference: FrameStatistics, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """``1 + s (S - 1)`` and ``s B``, n c each: ``S_i = sigma_ref / sigma_i``, ``B_i = mu_ref - S_i mu_i``.

    Exactly 1 and 0 where a frame is its own reference.
    """
    scale = (reference.deviation + FLAT) / (own.deviation + FLAT)
    scale = scale.clamp_(1 / MOST_SCALE, MOST_SCALE)
    shift = torch.addcmul(reference.mean, scale, own.mean, value=-1)
    return (scale, shift) if strength == 1 else (1 + strength * (scale - 1), strength * shift)
