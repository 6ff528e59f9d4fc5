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
        """``s (S - 1)`` and ``s B`` at a strength s, ``n c`` each; ``rows``, n, is the row of S and B for each of n, on
        their device.

        The difference from the identity, because it keeps its digits in half precision (1.0001 is 1 there), and because
        several adaptors add up in it.
        """
        return strength * (self.scale[rows] - 1), strength * self.shift[rows]


def apply_change(z: Tensor, gain: Tensor, shift: Tensor, beside: Tensor | None = None) -> Tensor:
    """``z + gain (z + beside) + shift``, of z's shape: with ``gain = S - 1`` and ``shift = B``, ``S z + B``.

    ``z`` is ``n c h w`` behind a convolution and ``n p c`` behind attention; gain and shift are of a shape that spreads
    over it, ``n c 1 1`` or ``n 1 c``, on its device, and may be of another dtype: in fp32 they keep their digits beside
    features in half precision.  ``beside``, shaped as z, is what the caller's sum holds beside z: it is scaled along,
    and not added again.  Written into z, and in one pass over it, when no gradient is wanted: fresh memory and further
    passes cost more than the sums.
    """
    if torch.is_grad_enabled():
        out = torch.addcmul(shift, z, 1 + gain).to(z.dtype)
        return out if beside is None else torch.addcmul(out, beside, gain).to(z.dtype)
    torch.addcmul(shift, z, 1 + gain, out=z)
    return z if beside is None else z.addcmul_(beside, gain)
