"""The distribution adaptor, MagicVideo "2D convolution with distribution adaptor".

Axes: b clips or conditionings of a batch, f frames of each, c channels, h height, w width, p = h * w; F trained frames.
"""

import torch
from einops import rearrange
from torch import Tensor, nn


class FrameAdaptor(nn.Module):
    """``z_i <- S_i * z_i + B_i``: a scale and a shift for each frame and channel, ``F c``.  Starts as the identity."""

    def __init__(self, frames: int, channels: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(frames, channels, device=device))
        self.shift = nn.Parameter(torch.zeros(frames, channels, device=device))

    def change(self, rows: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """``s (S - 1)`` and ``s B`` of the given rows, both ``(b f) c``.

        The difference from the identity, because it keeps its digits in half precision and because several adaptors
        add up in it.
        """
        rows = rows.to(self.scale.device)
        return strength * (self.scale[rows] - 1), strength * self.shift[rows]

    def forward(self, z: Tensor, rows: Tensor, strength: float = 1.0) -> Tensor:
        """(b f) c h w -> (b f) c h w"""
        return apply_change(z, *(rearrange(x, "n c -> n c 1 1") for x in self.change(rows, strength)))


def apply_change(z: Tensor, gain: Tensor, shift: Tensor, beside: Tensor | None = None) -> Tensor:
    """``z + gain (z + beside) + shift``, gain and shift of a shape that spreads over z.

    Written into z when no gradient is wanted: on a processor fresh memory costs more than the sums.
    """
    gain, shift = gain.to(z), shift.to(z)
    if torch.is_grad_enabled():
        z = torch.addcmul(z, z, gain)
        return (z if beside is None else torch.addcmul(z, beside, gain)) + shift
    z.addcmul_(z, gain)
    return (z if beside is None else z.addcmul_(beside, gain)).add_(shift)
