"""The frame-rate embedding, MagicVideo "fps embedding": ``Linear(SiLU(Linear(sinusoid(fps))))``, as for timesteps.

Axes: n numbers, c channels.
"""

import math
from types import ModuleType

import torch
from torch import Tensor, nn

# The rate of a clip whose frame rate the network is not to know.
NOT_TOLD = 0.0


def sinusoid(values: Tensor, channels: int) -> Tensor:
    """n -> n c: cosines, then sines, of the value at c / 2 rates from 1 down to 1 / 10000 (Vaswani et al. 2017)."""
    half = channels // 2
    rate = torch.exp(-math.log(10_000) * torch.arange(half, device=values.device) / half)
    angle = values[:, None].float() * rate
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class FpsEmbedding(nn.Module):
    """What is added to the UNet's time embedding for a frame rate.  Adds nothing until trained: its end is zero.

    ``channels`` of the sinusoid, an even number, and of the ``embedding``: the two ends of the UNet's timestep MLP.
    """

    def __init__(
        self,
        channels: int,
        embedding: int,
        operations: type | ModuleType = nn,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.inner = operations.Linear(channels, embedding, device=device)
        self.outer = operations.Linear(embedding, embedding, device=device)
        for parameter in self.outer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fps: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """n -> n c: an embedding for each of n rates in frames a second, in ``dtype``, that of ``fps`` by default.

        Rates in fp32 keep their digits until after the sinusoid; in half precision 23.976 would be 24.
        """
        return self.outer(nn.functional.silu(self.inner(sinusoid(fps, self.channels).to(dtype or fps.dtype))))
