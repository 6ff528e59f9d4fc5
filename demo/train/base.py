"""Trains the demo's image network on the stills of encode_stills.py: narrow, as ComfyUI's own UNet class.

    bash bin/run demo/train/base.py

Stopped at any time, the same command goes on; with more steps it goes on for longer. Noise schedule, prediction and
text are those with which ComfyUI samples an SD1.5 model.

Axes: b pictures, c channels, h height, w width, t tokens, d text channels.
"""

import argparse
import time
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.narrow_unet import narrow_model
from magicvideo.demo.train.encode_stills import word_table
from magicvideo.demo.train.few_tokens import few_token_options
from magicvideo.demo.train.resumable_training import ResumableTraining, TrainingSettings, half_precision
from magicvideo.tools.host_in_process import find_host

BATCH = 64
STEPS = 3_000
NO_CAPTION = 0.1  # share of pictures without text, for classifier-free guidance
# The plain noise loss hardly minds high noise, where the layout is decided: it's weighted by 1 / alpha-bar up to this.
MOST_WEIGHT = 10.0
TESTED_STEPS = (100, 300, 500, 700, 900)
REPORT_MINUTES = 3.0


class Denoiser:
    """The noise-prediction loss of a network at timesteps of ComfyUI's schedule, ``sigmas``."""

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas
        self.table = word_table()

    def weights(self, steps: Tensor) -> Tensor:
        """b -> b: 1 / alpha-bar, up to a limit; alpha-bar = 1 / (1 + sigma^2)."""
        return (1 + self.sigmas[steps] ** 2).clamp_max(MOST_WEIGHT)

    def losses(self, unet: nn.Module, latents: Tensor, words: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the predicted noise: b c h w, b t, b, b c h w -> b"""
        sigma = rearrange(self.sigmas[steps], "b -> b 1 1 1")
        noisy = (latents + sigma * noise) / (1 + sigma**2).sqrt()
        options = few_token_options(unet)
        # Plain attention: on a processor the fused one is slower on the way back.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted = unet(noisy, steps.float(), self.table[words], transformer_options=options)
        return (predicted.float() - noise).square().mean(dim=(1, 2, 3))


def train(run: ResumableTraining, denoiser: Denoiser, stills: dict[str, Tensor], held_out: dict[str, Tensor]) -> None:
    """Trains up to the last step of the run; ``stills`` and ``held_out`` are files of encode_stills.py."""
    torch.manual_seed(run.steps)
    told, recent = time.monotonic(), []
    while run.progress < 1:
        chosen = torch.randint(len(stills["latents"]), (BATCH,))
        latents, words = stills["latents"][chosen].float(), stills["words"][chosen].long()
        words = words * (torch.rand(BATCH, 1) >= NO_CAPTION)
        steps = torch.randint(len(denoiser.sigmas), (BATCH,))
        losses = denoiser.losses(run.module, latents, words, steps, torch.randn(latents.shape))
        run.step((denoiser.weights(steps) * losses).mean())
        recent.append(losses.detach().mean())
        if time.monotonic() - told > 60 * REPORT_MINUTES:
            report(run, denoiser, held_out, torch.stack(recent).mean().item())
            told, recent = time.monotonic(), []


@torch.no_grad()
def report(run: ResumableTraining, denoiser: Denoiser, held_out: dict[str, Tensor], loss: float | None = None) -> None:
    """Prints the loss since the last report, and that of held-out pictures, always with the same noise."""
    generator = torch.Generator().manual_seed(0)
    latents, words = held_out["latents"][:256].float(), held_out["words"][:256].long()
    noise = torch.randn(latents.shape, generator=generator)
    tested = [
        denoiser.losses(run.mean, latents, words, torch.full((len(latents),), step), noise).mean().item()
        for step in TESTED_STEPS
    ]
    figures = "  ".join(f"{step}: {value:.4f}" for step, value in zip(TESTED_STEPS, tested, strict=True))
    told = "" if loss is None else f"loss {loss:.4f}  "
    print(f"{run.seconds / 60:6.1f} min  step {run.steps}  {told}held out {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the demo's image network; goes on where it was stopped.")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--stills", type=Path, default=Path(".demo/training"))
    parser.add_argument("--state", type=Path, default=Path(".demo/training/base.pt"))
    parser.add_argument("--weights", type=Path, default=Path(".demo/training/stills_base.safetensors"))
    options = parser.parse_args()
    print(f"ComfyUI in {find_host()}")
    stills, held_out = (load_file(options.stills / f"stills_{name}.safetensors") for name in ("training", "held_out"))
    torch.manual_seed(0)
    model = narrow_model().model
    unet = model.diffusion_model.requires_grad_(True).train()
    unet.to(memory_format=torch.channels_last)
    settings = TrainingSettings(options.steps, rate=8e-4, ema=0.998, fall=0.3)
    run = ResumableTraining(unet, settings, options.state)
    denoiser = Denoiser(model.model_sampling.sigmas)
    train(run, denoiser, stills, held_out)
    run.save()
    report(run, denoiser, held_out)
    weights = half_precision(run.mean.state_dict().items())
    save_tensors(options.weights, weights, {"format": "pt", "title": "image network of the demo model, narrow"})


if __name__ == "__main__":
    main()
