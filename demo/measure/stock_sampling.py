"""Pictures from a checkpoint by ComfyUI's own nodes: load, encode the text, KSampler, decode.

Axes: b pictures, h height, w width, c colours.
"""

from pathlib import Path
from typing import Any

import comfy.sd
import nodes
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from magicvideo.demo.model.demo_models import SAMPLER, SCHEDULER
from magicvideo.demo.model.sizes import LATENT_CHANNELS
from magicvideo.demo.model.small_autoencoder import DOWNSCALING
from magicvideo.demo.world.sprite_scene import SIDE


class StockModel:
    """The three parts of a checkpoint as the stock loader gives them."""

    def __init__(self, checkpoint: Path) -> None:
        with torch.inference_mode():
            self.model, self.clip, self.vae, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))

    def pictures(
        self, prompt: str, seed: int, count: int, steps: int, cfg: float, model: ModelPatcher | None = None
    ) -> np.ndarray:
        """b h w c in 0..255: one batch of the stock KSampler, with another MODEL than the loaded one if given."""
        return as_bytes(self.decoded(self.latents(prompt, seed, empty_latents(count), steps, cfg, model)))

    @torch.inference_mode()
    def latents(
        self,
        prompt: str,
        seed: int,
        start: dict[str, Any],
        steps: int,
        cfg: float,
        model: ModelPatcher | None = None,
    ) -> Tensor:
        """b c h w, an eighth as high and wide; ``start`` is what a LATENT wire holds."""
        positive, negative = (self.clip.encode_from_tokens_scheduled(self.clip.tokenize(t)) for t in (prompt, ""))
        model = model or self.model
        (sampled,) = nodes.common_ksampler(model, seed, steps, cfg, SAMPLER, SCHEDULER, positive, negative, start)
        return sampled["samples"]

    @torch.inference_mode()
    def decoded(self, latents: Tensor) -> Tensor:
        """b c h w -> b h w c in 0..1"""
        return self.vae.decode(latents)


def empty_latents(count: int) -> dict[str, Tensor]:
    """What Empty Latent Image gives."""
    return {"samples": torch.zeros(count, LATENT_CHANNELS, SIDE // DOWNSCALING, SIDE // DOWNSCALING)}


def as_bytes(pictures: Tensor) -> np.ndarray:
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8).numpy()
