"""Pictures and words to what the UNet works on, by the host's own autoencoder and text encoder.

Axes: f frames, h w of a picture or latent, c latent channels, n tokens, d text channels.
"""

from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor


@dataclass(frozen=True)
class HostEncoders:
    """``training.latent_cache.Encoders`` of a loaded checkpoint.  ``fingerprint`` names its weights."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    fingerprint: str

    def pictures(self, frames: Tensor) -> Tensor:
        """f h w 3 in 0 to 1 -> f c h w"""
        with torch.no_grad():
            return self.model.model.process_latent_in(self.vae.encode(frames)).float().cpu().clone()

    def text(self, caption: str) -> Tensor:
        """-> n d"""
        with torch.no_grad():
            encoded = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(caption))
        return encoded[0][0][0].float().cpu().clone()


def decode(model: ModelPatcher, vae: VAE, latents: Tensor) -> Tensor:
    """f c h w -> f h w 3 in 0 to 1"""
    with torch.no_grad():
        return vae.decode(model.model.process_latent_out(latents)).float().cpu().clamp(0, 1)
