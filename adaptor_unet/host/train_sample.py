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
from ..frame_layout import FrameLayout
from ..frame_noise import clip_noise
from .frame_cache import FrameCache
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
    """f c h w: Euler steps on the host's normal schedule; text and empty text ``n d``, repeated to one length.

    All frames together, or one after the other where the adaptor is trained for that.
    """
    device, sampling = denoiser.sigmas.device, denoiser.sampling
    tokens = max(len(text), len(empty_text))
    both = torch.stack([repeat(x, "n d -> (r n) d", r=tokens // len(x)) for x in (text, empty_text)]).to(device)
    cache = FrameCache()

    def model(x: Tensor, sigma: Tensor, layout: FrameLayout, **_: object) -> Tensor:
        """f c h w -> f c h w, with guidance"""
        cache.begin_chunk()
        twice, levels = repeat(x, "f c h w -> (b f) c h w", b=2), repeat(sigma, "f -> (b f)", b=2)
        out = denoiser.predict(twice, levels, both, (settings.fps,) * 2, adaptor, layout, cache.of_call((0, 1)))
        denoised = denoiser.denoised(out, twice, levels)
        wanted, empty = rearrange(denoised, "(b f) c h w -> b f c h w", b=2)
        return empty + settings.cfg * (wanted - empty)

    def sampled(noise: Tensor, layout: FrameLayout) -> Tensor:
        cache.keeps = False
        x = sampling.noise_scaling(sigmas[:1], noise, torch.zeros_like(noise), max_denoise=True)
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, extra_args={"layout": layout}, disable=True)

    def shown(frame: Tensor, layout: FrameLayout) -> None:
        cache.keeps = True
        sigma = sigmas.new_tensor([adaptor.config.context_noise])
        noise = torch.randn(frame.shape, generator=generator).to(frame)
        model(sampling.noise_scaling(sigma, noise, frame), sigma, layout)

    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", settings.steps).to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    noise = clip_noise(settings.shape, generator, adaptor.config.shared_noise).to(device)
    try:
        if adaptor.config.frame_noise_levels == "one_a_clip":
            return sampled(noise, FrameLayout.whole(2, len(noise)))
        frames = []
        for place, own in enumerate(noise.split(1)):
            layout = FrameLayout(2, (place,), (0,))
            frames.append(sampled(own, layout))
            shown(frames[-1], layout)
        return torch.cat(frames)
    finally:
        cache.clear()
        denoiser.close()
