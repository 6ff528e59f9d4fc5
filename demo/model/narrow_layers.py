"""Layers of the narrow image network, such that its zero-padded copy of twice the width computes the same.

The narrow network has half the channels of SD1.5's first level: 160 in place of 320. Padded with zeros, most layers
give the same as before, and zeros in the new channels. Two kinds look at many channels at once and must know of the
zeros:

- Group norm. SD1.5 has 32 groups. Half as many groups in the narrow network hold as many channels each as in the wide
  one, where the other half of the groups is all zeros.
- Layer norm. Mean and variance are taken as if over twice the channels, the others being zero.

ComfyUI's UNet takes such a namespace as its ``operations``, and so does the pack's adaptor.
"""

from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad

WIDENING = 2
HEAD_CHANNELS = 40  # of the attention, as in SD1.5 at this width: 320 channels, 8 heads


class Linear(nn.Linear):
    pass


class Conv2d(nn.Conv2d):
    pass


class GroupNorm(nn.GroupNorm):
    """Group norm with half of the groups that it is asked for."""

    def __init__(self, num_groups: int, num_channels: int, *args: object, **settings: object) -> None:
        super().__init__(num_groups // WIDENING, num_channels, *args, **settings)


class LayerNorm(nn.LayerNorm):
    """``... c -> ... c``, normalised as if over 2 c channels of which the further c are zero."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[-1]
        wide = pad(x, (0, channels * (WIDENING - 1)))
        return layer_norm(wide, wide.shape[-1:], eps=self.eps)[..., :channels] * self.weight + self.bias


def conv_nd(dims: int, *args: object, **settings: object) -> Conv2d:
    """Raises ValueError for anything but pictures: the image network has no other convolutions."""
    if dims != 2:
        raise ValueError(f"only 2D convolutions exist here, asked for {dims}D")
    return Conv2d(*args, **settings)
