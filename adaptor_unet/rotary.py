"""Rotary encoding of frame positions, RoFormer (Su et al. 2021, arXiv 2104.09864).

Axes: f frames, p positions, h heads, d channel pairs of a head.
"""

from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from .frame_layout import CHUNKS_KEPT


def rotate(x: Tensor, positions: tuple[int, ...], heads: int) -> Tensor:
    """Rotary encoding of the frame position, f p c -> f p c: a score then depends on the distance of two frames only.

    Pair i of a head's channels turns by ``position * 10000 ** (-i / d)``.
    """
    even, odd = rearrange(x, "f p (h d two) -> two f p h d", h=heads, two=2).unbind()
    cos, sin = (part.to(x.dtype) for part in rotation(positions, even.shape[-1], x.device))
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos])
    return rearrange(turned, "two f p h d -> f p (h d two)")


@lru_cache(maxsize=CHUNKS_KEPT)  # asked for at every site of a call
def rotation(positions: tuple[int, ...], pairs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which ``rotate`` turns channel pairs, ``f 1 1 d`` each."""
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        rate = 10_000 ** (-torch.arange(pairs) / pairs)
        angle = torch.tensor(positions)[:, None, None, None] * rate
        return angle.cos().to(device), angle.sin().to(device)
