"""The distribution adaptor, MagicVideo "2D convolution with distribution adaptor": ``z_i <- S_i z_i + B_i``.

A scale S and a shift B for each frame of a clip and each channel, behind a convolution that all frames share.  It acts
in two steps: ``FrameAdaptor.change`` says how far S and B are from the identity for the rows of a batch, and
``apply_change`` adds that to the features.  Between the two, the changes of several adaptors can be summed.

Axes: F frames of a training clip, n rows of a batch (each is one frame), c channels.
"""

import torch
from torch import Tensor, nn


class FrameAdaptor(nn.Module):
    """S and B of one place in the UNet, ``F c`` each.  Starts as the identity: S is 1 and B is 0."""

    def __init__(self, frames: int, channels: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(frames, channels, device=device))
        self.shift = nn.Parameter(torch.zeros(frames, channels, device=device))

    def change(self, rows: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """``s (S - 1)`` and ``s B`` at a strength s, ``n c`` each; ``rows``, n, are rows of S and B, on their device.

        The difference from the identity, because it keeps its digits in half precision (1.0001 is 1 there), and because
        several adaptors add up in it.
        """
        return strength * (self.scale[rows] - 1), strength * self.shift[rows]


def scale_and_shift(z: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``S z + B``, of z's shape; scale and shift spread over it, ``n c 1 1`` or ``n 1 c``, in z's dtype or in fp32.

    Written into z, in one pass, when no gradient is wanted: fresh memory and further passes cost more than the sums.
    """
    return torch.addcmul(shift, z, scale, out=None if torch.is_grad_enabled() else z).to(z.dtype)


def apply_change(
    z: Tensor, scale_delta: Tensor, shift: Tensor, residual: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    """``z + scale_delta (z + residual) + shift``, z's shape: with ``S - 1`` and ``B`` and no residual, ``S z + B``.

    ``residual`` is what the caller adds to the result: scaled along here, not added.  ``scale``: 1 + scale_delta, if it
    is there already.
    """
    out = scale_and_shift(z, 1 + scale_delta if scale is None else scale, shift)
    if residual is None:
        return out
    return torch.addcmul(out, residual, scale_delta, out=None if torch.is_grad_enabled() else out).to(z.dtype)
