"""The loss on a fixed sample: the same clips, noise and noise levels each time, so that two figures can be compared.

The high-noise half is told apart: layout and motion are decided there, and the total hides it.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from ..adaptor import VideoAdaptor
from ..frame_noise import clip_noise
from ..temporal_network import Network
from .data.latent_clip import STILL_FPS, LatentClip
from .objective import NoisyFrames, Objective
from .settings import FINISHED_TIMESTEP
from .step_plan import seed_from

LEVELS = 4


@torch.no_grad()
def validation_loss(
    objective: Objective,
    clips: Sequence[LatentClip],
    network: Network | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Unweighted error, each figure in all, at high noise (the later half of the timesteps) and at low noise.

    ``val``: all frames at one noise level, as they are sampled together.  ``val_given``: each frame given the finished
    ones before it, as they are sampled frame after frame; only with an adaptor, since no other network is told of them.
    ``progress`` is told which of the passes is next, and how many there are.
    """
    device = objective.denoiser.sigmas.device
    timesteps = len(objective.denoiser.sigmas)
    adaptor = network if isinstance(network, VideoAdaptor) else None
    shared = adaptor.config.shared_noise if adaptor else 0.0
    figures = Figures(timesteps)
    for place, clip in enumerate(clips):
        frames, shape = len(clip.latents), tuple(clip.latents.shape)
        latents = rearrange(clip.latents.to(device).float(), "f c h w -> 1 f c h w")
        text, fps = rearrange(clip.text.to(device).float(), "n d -> 1 n d"), (clip.fps or STILL_FPS,)

        def noisy(noise: Tensor, at: int, latents: Tensor = latents) -> NoisyFrames:
            levels = torch.full(latents.shape[:2], at, device=device)
            return NoisyFrames(latents, rearrange(noise.to(device), "f c h w -> 1 f c h w"), levels)

        for level in range(LEVELS):
            if progress is not None:
                progress(place * LEVELS + level + 1, len(clips) * LEVELS)
            generator = torch.Generator().manual_seed(seed_from("validation", place, level))
            at = timesteps * (2 * level + 1) // (2 * LEVELS)
            noised = noisy(clip_noise(shape, generator, shared), at)
            figures.add("val", at, objective.errors(noised, text, fps, network))
            if adaptor is not None and frames > 1:
                finished = noisy(torch.randn(shape, generator=generator), timesteps * FINISHED_TIMESTEP // 1000)
                figures.add("val_given", at, objective.errors(noised, text, fps, network, finished)[:, 1:])
    return figures.means()


class Figures:
    """Means of errors, by name and half of the timesteps."""

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps
        self.errors: dict[str, dict[str, list[float]]] = {}

    def add(self, name: str, at: int, errors: Tensor) -> None:
        """Takes the errors of some frames at one timestep."""
        half = "high" if at >= self.timesteps // 2 else "low"
        self.errors.setdefault(name, {"high": [], "low": []})[half].append(errors.mean().item())

    def means(self) -> dict[str, float]:
        """The mean of each name in all, and as ``NAME_high`` and ``NAME_low`` at high and low noise."""
        found = {}
        for name, halves in self.errors.items():
            means = {half: sum(values) / len(values) for half, values in halves.items()}
            found |= {name: sum(means.values()) / 2} | {f"{name}_{half}": mean for half, mean in means.items()}
        return found
