"""Frames that a noise mask keeps come out of sampling as they went in."""

import torch
from einops import reduce
from torch import Tensor

from .versions import full_mask


def with_kept_frames(samples: Tensor, given: Tensor, noise_mask: Tensor | None) -> Tensor:
    """``f c h w`` of the samples, with each frame whose mask is 0 everywhere taken from ``given``, bit for bit.

    The host's samplers arrive at these frames by sums, which round.
    """
    if noise_mask is None:
        return samples
    mask = full_mask(noise_mask, samples.shape).to(samples.device)
    return torch.where(reduce(mask, "f c h w -> f 1 1 1", "max") == 0, given.to(samples), samples)
