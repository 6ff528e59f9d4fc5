"""The loss: the image model's own, on the latents of clips.

Axes: n frames of all clips in the batch, f frames of a clip, b clips, c h w of a latent.
"""

from typing import Protocol

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from ..adaptor import VideoAdaptor
from .settings import TrainingSettings, Weighting


class Denoiser(Protocol):
    """An image model that may be trained: the only way in which training meets the host.

    ``sigmas`` holds the noise level of each timestep, rising.  ``denoised`` is linear in ``out``, whatever the model
    predicts (noise, v).  All tensors are fp32, with one noise level a row.
    """

    sigmas: Tensor

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """n c h w -> n c h w"""

    def denoised(self, out: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """n c h w -> n c h w: the clean latents that the model's output stands for."""

    def predict(
        self, x: Tensor, sigma: Tensor, text: Tensor, fps: tuple[float, ...], adaptor: VideoAdaptor | None
    ) -> Tensor:
        """n c h w -> n c h w: the model's output; one clip for each entry of ``fps``, ``text`` is ``b tokens d``."""


def target(denoiser: Denoiser, latents: Tensor, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """What the model should put out, and how far ``denoised`` moves for one unit of output, both ``n c h w``.

    ``denoised = a x + b out``, so the output that gives the clean latents is ``(latents - a x) / b``.
    """
    at_zero = denoiser.denoised(torch.zeros_like(x), x, sigma)
    slope = denoiser.denoised(torch.ones_like(x), torch.zeros_like(x), sigma)
    return (latents - at_zero) / slope, slope


def weights(kind: Weighting, sigma: Tensor, slope: Tensor, cap: float) -> Tensor:
    """Weight of the squared error of the model's output at each noise level, for ``slope`` of ``denoised``.

    ``min_snr``: ``min(SNR, cap)`` on the clean latents (Hang et al. 2023), SNR = 1 / sigma^2.  ``high_noise``:
    ``min(1 / alpha_bar, cap)`` on the noise, 1 / alpha_bar = 1 + sigma^2: layout and motion are decided where the noise
    is high, and there an error of the noise is an error of ``sigma`` times its size in the picture.
    """
    if kind == "min_snr":
        return (1 / sigma**2).clamp(max=cap) * slope**2
    if kind == "high_noise":
        return (1 + sigma**2).clamp(max=cap) * slope**2 / sigma**2
    return torch.ones_like(sigma)


class Objective:
    """Weighted error of a clip batch.  The weights are scaled to a mean of 1 over all timesteps."""

    def __init__(self, denoiser: Denoiser, settings: TrainingSettings) -> None:
        self.denoiser, self.settings = denoiser, settings
        self.weights = self._weights()

    def loss(
        self,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        text: Tensor,
        fps: tuple[float, ...],
        adaptor: VideoAdaptor | None,
        weighted: bool = True,
    ) -> Tensor:
        """Error of each clip, ``b``.  latents and noise ``b f c h w``, timesteps ``b`` (one a clip), text ``b n d``."""
        frames = latents.shape[1]
        x0, noise = (rearrange(x, "b f c h w -> (b f) c h w") for x in (latents, noise))
        sigma = repeat(self.denoiser.sigmas[timesteps], "b -> (b f)", f=frames)
        x = self.denoiser.add_noise(x0, noise, sigma)
        wanted, _ = target(self.denoiser, x0, x, sigma)
        out = self.denoiser.predict(x, sigma, text, fps, adaptor)
        error = reduce((out.float() - wanted) ** 2, "(b f) c h w -> b", "mean", f=frames)
        return error * self.weights[timesteps] if weighted else error

    def _weights(self) -> Tensor:
        sigma = self.denoiser.sigmas
        like = rearrange(torch.zeros_like(sigma), "n -> n 1 1 1")
        slope = rearrange(target(self.denoiser, like, like, sigma)[1], "n 1 1 1 -> n")
        found = weights(self.settings.weighting, sigma, slope, self.settings.weighting_cap)
        return found / found.mean()
