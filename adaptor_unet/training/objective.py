"""The loss: the image model's own, on the latents of clips.

Axes: n rows of the UNet, f frames of a clip, b clips, c h w of a latent; r = f rows of a clip, or 2 f with its finished
frames in front.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange, reduce
from torch import Tensor

from ..frame_layout import FrameLayout
from ..temporal_network import Network
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
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        fps: tuple[float, ...],
        network: Network | None,
        layout: FrameLayout | None = None,
    ) -> Tensor:
        """n c h w -> n c h w: the model's output; one clip for each entry of ``fps``, ``text`` is ``b tokens d``.

        ``layout`` says which row is which frame; without it each clip's rows are its frames in order.
        """


class Teacher(Protocol):
    """A model that is good at motion already, and is learnt from."""

    def clean(self, x: Tensor, sigma: Tensor, text: Tensor, fps: tuple[float, ...]) -> Tensor:
        """n c h w -> n c h w: the clean latents for which it takes clips that are noised to ``sigma``.

        There is one noise level a clip; arguments as for ``Denoiser.predict``.
        """


@dataclass(frozen=True)
class NoisyFrames:
    """Clips with their noise, ``b f c h w`` twice, and the timestep of each frame, ``b f``."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor


def target(denoiser: Denoiser, latents: Tensor, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """What the model should put out, and how far ``denoised`` moves for one unit of output, both ``n c h w``.

    ``denoised = a x + b out``, so the output that gives the clean latents is ``(latents - a x) / b``.
    """
    at_zero = denoiser.denoised(torch.zeros_like(x), x, sigma)
    slope = denoiser.denoised(torch.ones_like(x), torch.zeros_like(x), sigma)
    return (latents - at_zero) / slope, slope


def weights(weighting: Weighting, sigma: Tensor, slope: Tensor, cap: float) -> Tensor:
    """Weight of the squared error of the model's output at each noise level, for ``slope`` of ``denoised``.

    ``min_snr``: ``min(SNR, cap)`` on the clean latents (Hang et al. 2023), SNR = 1 / sigma^2.  ``high_noise``:
    ``min(1 / alpha_bar, cap)`` on the noise, 1 / alpha_bar = 1 + sigma^2: layout and motion are decided where the noise
    is high, and there an error of the noise is an error of ``sigma`` times its size in the picture.
    """
    if weighting == "min_snr":
        return (1 / sigma**2).clamp(max=cap) * slope**2
    if weighting == "high_noise":
        return (1 + sigma**2).clamp(max=cap) * slope**2 / sigma**2
    return torch.ones_like(sigma)


class Objective:
    """The weighted error of clips.  The weights are scaled to a mean of 1 over all timesteps."""

    def __init__(self, denoiser: Denoiser, settings: TrainingSettings) -> None:
        self.denoiser, self.settings = denoiser, settings
        self.weights = self._weights()

    def loss(
        self,
        clips: NoisyFrames,
        text: Tensor,
        fps: tuple[float, ...],
        network: Network | None,
        finished: NoisyFrames | None = None,
        teacher: Teacher | None = None,
    ) -> Tensor:
        """Weighted error of each clip, ``b``; arguments as for ``errors``."""
        errors = self.errors(clips, text, fps, network, finished, teacher)
        return reduce(errors * self.weights[clips.timesteps], "b f -> b", "mean")

    def errors(
        self,
        clips: NoisyFrames,
        text: Tensor,
        fps: tuple[float, ...],
        network: Network | None,
        finished: NoisyFrames | None = None,
        teacher: Teacher | None = None,
    ) -> Tensor:
        """Error of each frame, ``b f``.  ``text`` is ``b n d``.

        With ``finished``, the same clips nearly clean, each frame is given the finished ones before it.  With a
        ``teacher``, what it makes of the noisy clips is wanted in place of the clips.
        """
        frames = clips.latents.shape[1]
        layout = None if finished is None else FrameLayout.given_finished(len(fps), frames)
        rows = [clips] if finished is None else [finished, clips]
        x0, noise = (
            rearrange(torch.cat([getattr(part, name) for part in rows], dim=1), "b r c h w -> (b r) c h w")
            for name in ("latents", "noise")
        )
        timesteps = rearrange(torch.cat([part.timesteps for part in rows], dim=1), "b r -> (b r)")
        sigma = self.denoiser.sigmas[timesteps]
        x = self.denoiser.add_noise(x0, noise, sigma)
        # Before the prediction: the teacher may use the same UNet, which is then the learner's until the gradients.
        wanted, _ = target(self.denoiser, x0 if teacher is None else teacher.clean(x, sigma, text, fps), x, sigma)
        out = self.denoiser.predict(x, sigma, text, fps, network, layout)
        errors = reduce((out.float() - wanted) ** 2, "(b r) c h w -> b r", "mean", b=len(fps))
        return errors[:, -frames:]

    def _weights(self) -> Tensor:
        sigma = self.denoiser.sigmas
        like = rearrange(torch.zeros_like(sigma), "n -> n 1 1 1")
        slope = rearrange(target(self.denoiser, like, like, sigma)[1], "n 1 1 1 -> n")
        found = weights(self.settings.weighting, sigma, slope, self.settings.weighting_cap)
        return found / found.mean()
