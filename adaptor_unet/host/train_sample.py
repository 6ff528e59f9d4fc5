"""A sample clip of the weights as they are in training, by the host's own sampler.

Axes: f frames, c h w of a latent, n tokens, d text channels.
"""

from dataclasses import dataclass

import comfy.k_diffusion.sampling
import comfy.samplers
import torch
from einops import rearrange, repeat
from torch import Tensor

from ..adaptor import VideoAdaptor
from ..frame_noise import clip_noise
from .train_unet import TrainingUnet


@dataclass(frozen=True)
class SampleSettings:
    """``shape`` of the clip ``f c h w``, its fps, and how to sample it."""

    shape: tuple[int, int, int, int]
    fps: float
    steps: int
    cfg: float
    seed: int


@torch.no_grad()
def sample_latents(
    denoiser: TrainingUnet, adaptor: VideoAdaptor, text: Tensor, empty_text: Tensor, settings: SampleSettings
) -> Tensor:
    """f c h w: Euler steps on the host's normal schedule; text and empty text ``n d``, repeated to one length."""
    device = denoiser.sigmas.device
    tokens = max(len(text), len(empty_text))
    both = torch.stack([repeat(x, "n d -> (r n) d", r=tokens // len(x)) for x in (text, empty_text)]).to(device)

    def model(x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        """f c h w -> f c h w, with guidance"""
        twice, levels = repeat(x, "f c h w -> (b f) c h w", b=2), repeat(sigma, "f -> (b f)", b=2)
        out = denoiser.predict(twice, levels, both, (settings.fps,) * 2, adaptor)
        denoised = denoiser.denoised(out, twice, levels)
        wanted, empty = rearrange(denoised, "(b f) c h w -> b f c h w", b=2)
        return empty + settings.cfg * (wanted - empty)

    sigmas = comfy.samplers.calculate_sigmas(denoiser.sampling, "normal", settings.steps).to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    noise = clip_noise(settings.shape, generator, adaptor.config.shared_noise).to(device)
    x = denoiser.sampling.noise_scaling(sigmas[:1], noise, torch.zeros_like(noise), max_denoise=True)
    try:
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, disable=True)
    finally:
        denoiser.close()
