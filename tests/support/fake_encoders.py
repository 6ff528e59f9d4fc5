"""Stand-ins for the autoencoder and the text encoder: fast, and different for different input."""

from hashlib import sha256

import torch
from einops import rearrange, reduce
from torch import Tensor


class FakeEncoders:
    """Averages of 8 by 8 pixels and their spread as four channels; a text's hash as its embedding."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.captions: list[str] = []

    def pictures(self, frames: Tensor) -> Tensor:
        """f h w 3 -> f 4 h w"""
        self.batches.append(len(frames))
        means = reduce(frames, "f (h a) (w b) c -> f c h w", "mean", a=8, b=8)
        spread = reduce(frames, "f (h a) (w b) c -> f h w", "max", a=8, b=8)
        return torch.cat([means, rearrange(spread, "f h w -> f 1 h w")], dim=1) * 4 - 2

    def text(self, caption: str) -> Tensor:
        """n d"""
        self.captions.append(caption)
        return torch.tensor(list(sha256(caption.encode()).digest()), dtype=torch.float32).reshape(4, 8) / 255


def never() -> FakeEncoders:
    raise AssertionError("no encoder is needed")
