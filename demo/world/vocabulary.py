"""The vector of each word that the demo model knows; synonyms share one.

Each word must be one token of CLIP's tokenizer, or it would reach the image network as pieces.

Axes: d text channels.
"""

import zlib

import torch
from torch import Tensor

from magicvideo.demo.model.sizes import TEXT_CHANNELS


def word_vector(meaning: str) -> Tensor:
    """The text channels ``d`` that the image network gets for a meaning: random, the same always, mean 0, variance 1.

    Random vectors of this many channels are almost at right angles, and layer norms leave these as they are.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(meaning.encode()))
    vector = torch.randn(TEXT_CHANNELS, generator=generator)
    return (vector - vector.mean()) / vector.std(correction=0)
