"""The loss on a fixed sample: the same clips, noise and noise levels each time, so that two figures can be compared.

The high-noise half is told apart: layout and motion are decided there, and the total hides it.
"""

from collections.abc import Sequence

import torch
from einops import rearrange

from ..adaptor import VideoAdaptor
from ..frame_noise import clip_noise
from .latent_clip import STILL_FPS, LatentClip
from .objective import Objective
from .step_plan import number

LEVELS = 4


@torch.no_grad()
def validation_loss(
    objective: Objective, clips: Sequence[LatentClip], adaptor: VideoAdaptor | None
) -> dict[str, float]:
    """Unweighted error in all, at high noise (the later half of the timesteps) and at low noise."""
    device = objective.denoiser.sigmas.device
    timesteps = len(objective.denoiser.sigmas)
    shared = adaptor.config.shared_noise if adaptor else 0.0
    high, low = [], []
    for place, clip in enumerate(clips):
        for level in range(LEVELS):
            generator = torch.Generator().manual_seed(number("validation", place, level))
            noise = clip_noise(tuple(clip.latents.shape), generator, shared)
            at = torch.tensor([timesteps * (2 * level + 1) // (2 * LEVELS)], device=device)
            latents, noise = (rearrange(x.to(device).float(), "f c h w -> 1 f c h w") for x in (clip.latents, noise))
            text = rearrange(clip.text.to(device).float(), "n d -> 1 n d")
            error = objective.loss(latents, noise, at, text, (clip.fps or STILL_FPS,), adaptor, weighted=False)
            (high if at >= timesteps // 2 else low).append(error.item())
    mean_high, mean_low = sum(high) / len(high), sum(low) / len(low)
    return {"val": (mean_high + mean_low) / 2, "val_high": mean_high, "val_low": mean_low}
