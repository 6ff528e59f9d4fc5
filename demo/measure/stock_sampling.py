"""Pictures from a checkpoint by ComfyUI's own nodes: load, encode the text, KSampler, decode.

Axes: b pictures, h height, w width, c colours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from magicvideo.demo.model.demo_models import SAMPLER, SCHEDULER
from magicvideo.demo.model.sizes import LATENT_CHANNELS
from magicvideo.demo.model.small_autoencoder import DOWNSCALING, as_bytes
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
        latents = self.latents([prompt], [seed], empty_latents(count), steps, cfg, model)
        return as_bytes(self.decoded(latents)).numpy()

    @torch.inference_mode()
    def latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        start: dict[str, Any],
        steps: int,
        cfg: float,
        model: ModelPatcher | None = None,
    ) -> Tensor:
        """b c h w, an eighth as high and wide; ``start`` is what a LATENT wire holds.

        Clips of equal length side by side, each with its prompt and the noise of its seed, as if it were alone.
        """
        model, given = model or self.model, start["samples"]
        frames = len(given) // len(prompts)
        texts = [self.text(prompt) for prompt in prompts]
        positive = [[torch.cat([text.expand(frames, -1, -1) for text in texts]), {}]]
        noise = [
            comfy.sample.prepare_noise(one, seed, start.get("batch_index") and list(range(frames)))
            for one, seed in zip(given.split(frames), seeds, strict=True)
        ]
        return comfy.sample.sample(
            model,
            torch.cat(noise),
            steps,
            cfg,
            SAMPLER,
            SCHEDULER,
            positive,
            [[self.text(""), {}]],
            given,
            noise_mask=start.get("noise_mask"),
            disable_pbar=True,
            seed=seeds[0],
        )

    def text(self, prompt: str) -> Tensor:
        """1 tokens channels: the embedding of a prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))[0][0]

    @torch.inference_mode()
    def encoded(self, pictures: Tensor) -> Tensor:
        """b h w c in 0..1 -> b c h w"""
        return self.vae.encode(pictures)

    @torch.inference_mode()
    def decoded(self, latents: Tensor) -> Tensor:
        """b c h w -> b h w c in 0..1"""
        return self.vae.decode(latents)


def empty_latents(count: int) -> dict[str, Tensor]:
    """The latents of so many frames as Empty Latent Image gives them."""
    return {"samples": torch.zeros(count, LATENT_CHANNELS, SIDE // DOWNSCALING, SIDE // DOWNSCALING)}
