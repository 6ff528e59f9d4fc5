"""A caption as a training run keeps it: one tensor, whatever the text encoder of the model's family gives.

SDXL reads tokens and, beside the timestep, a vector that sums up the caption ("pooled") and the picture's size.  The
vector stands behind the tokens in the same tensor, so that caches, shards and plans know of no families.

Axes: b captions, n tokens, r rows of the vector, d channels of a token, v numbers of the vector.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import pad

from .base_model import unet_of

# SDXL's vector holds six numbers of the picture's size, 256 channels each, behind the caption's own.
SIZE_CHANNELS = 6 * 256
POOLED = "pooled_output"  # the host's name of the vector in a conditioning
# Pixels of a latent's side, as the host's samplers count a picture's size.
LATENT_PIXELS = 8


@dataclass(frozen=True)
class CaptionTensor:
    """How tokens and vector lie in ``(n + r) d``: ``channels`` d and ``vector`` v, 0 where the model takes none."""

    channels: int
    vector: int = 0

    @classmethod
    def of(cls, model: ModelPatcher) -> "CaptionTensor":
        """That of the model's family.  Raises ValueError for a model that is none of Stable Diffusion."""
        unet, settings = unet_of(model), model.model.model_config.unet_config
        summed = unet.num_classes is not None and model.model.model_config.noise_aug_config is None
        return cls(settings["context_dim"], settings["adm_in_channels"] - SIZE_CHANNELS if summed else 0)

    @property
    def rows(self) -> int:
        """Rows that the vector takes, r."""
        return math.ceil(self.vector / self.channels)

    def joined(self, tokens: Tensor, vector: Tensor | None) -> Tensor:
        """``n d`` and ``v`` -> ``(n + r) d``.  Raises ValueError when the model wants a vector and there is none."""
        if not self.vector:
            return tokens
        if vector is None or vector.numel() != self.vector:
            found = "none" if vector is None else f"one of {vector.numel()}"
            raise ValueError(
                f"A caption for this model needs a pooled output of {self.vector} numbers, found {found}. Encode it "
                "with the text encoders of the model's own checkpoint."
            )
        filled = pad(vector.flatten(), (0, self.rows * self.channels - self.vector))
        return torch.cat([tokens, rearrange(filled, "(r d) -> r d", d=self.channels).to(tokens)])

    def apart(self, captions: Tensor) -> tuple[Tensor, Tensor | None]:
        """``b (n + r) d`` -> ``b n d`` and ``b v``, None where the model takes no vector."""
        if not self.vector:
            return captions, None
        tokens, rows = captions[:, : -self.rows], captions[:, -self.rows :]
        return tokens, rearrange(rows, "b r d -> b (r d)")[:, : self.vector]

    def stacked(self, captions: Sequence[Tensor]) -> Tensor:
        """``b (n + r) d``, fp32, of captions of several lengths: tokens are repeated to one length, as samplers do.

        In fp32 because a processor's autocast joins no tensors of fp16, as shards may have them.
        """
        apart = [self.apart(caption[None].float()) for caption in captions]
        most = math.lcm(*(tokens.shape[1] for tokens, _ in apart))
        return torch.stack(
            [
                self.joined(repeat(tokens[0], "n d -> (k n) d", k=most // tokens.shape[1]), vector)
                for tokens, vector in apart
            ]
        )
