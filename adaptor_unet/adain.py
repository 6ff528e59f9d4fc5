"""AdaIN over the frames of a clip: each frame's channels get the mean and standard deviation of the first frame's.

It is the distribution adaptor computed instead of learnt (AdaIN: Huang and Belongie 2017).
Axes: b clips or conditionings of a batch, f frames of each, n = b f rows, c channels, ... positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor

from .frame_layout import FrameLayout

# Added to each standard deviation: where both are far below, the scale is 1.
FLAT = 1e-5
# A nearly flat channel holds nothing that a larger scale could bring out.
MOST_SCALE = 4.0


class FrameStatistics(NamedTuple):
    """Mean and standard deviation of each channel, ``n c`` in fp32."""

    mean: Tensor
    deviation: Tensor


def frame_statistics(z: Tensor) -> FrameStatistics:
    """n c ... -> n c"""
    variance, mean = torch.var_mean(z.float(), dim=tuple(range(2, z.ndim)), correction=0)
    return FrameStatistics(mean, variance.sqrt())


@dataclass
class ReferenceStatistics:
    """Statistics of a clip's first frame, ``c`` each, at one site, from the chunk that holds it on."""

    mean: Tensor | None = None
    deviation: Tensor | None = None
    device: torch.device | None = None  # of what other pasts hold; these few numbers stay where they are

    def or_first(self, own: FrameStatistics) -> FrameStatistics:
        """f c -> c: what was remembered; the first row, remembered from now on, where nothing was."""
        if self.mean is None:
            self.mean, self.deviation = own.mean[0].clone(), own.deviation[0].clone()
        return FrameStatistics(self.mean, self.deviation)


def reference_of(
    own: FrameStatistics, layout: FrameLayout, past: Sequence[ReferenceStatistics] = ()
) -> FrameStatistics:
    """n c -> n c: for each row, the statistics of the first frame of its clip.

    That is the first frame that the call holds; with ``past``, one entry for each b, the clip's very first.
    """
    if not past:
        rows = torch.tensor(layout.first_rows(), device=own.mean.device)
        return FrameStatistics(own.mean[rows], own.deviation[rows])
    f = layout.frames
    firsts = [
        past[row].or_first(FrameStatistics(*(x[row * f : (row + 1) * f] for x in own))) for row in range(layout.batch)
    ]
    return FrameStatistics(*(repeat(torch.stack(x), "b c -> (b f) c", f=f) for x in zip(*firsts, strict=True)))


def adain(own: FrameStatistics, reference: FrameStatistics, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """``s (S - 1)`` and ``s B``, n c each: ``S_i = sigma_ref / sigma_i``, ``B_i = mu_ref - S_i mu_i``.

    Exactly 0 where a frame is its own reference.
    """
    scale = (reference.deviation + FLAT) / (own.deviation + FLAT)
    scale = scale.clamp(1 / MOST_SCALE, MOST_SCALE)
    return strength * (scale - 1), strength * (reference.mean - scale * own.mean)
