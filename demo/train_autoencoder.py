"""Trains the demo's autoencoder on stills of moving sprites.

    python demo/train_autoencoder.py --steps 12000

Stopped at any time, the same command goes on. Encoder and decoder learn together for the first part of the steps, then
the encoder stays as it is and the decoder goes on alone: what counts for sharpness is the decoder, and latents that
stand still can be used to train the image network.

Axes: b pictures, c channels, h height, w width.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from resumable_training import ResumableTraining, TrainingSettings, half_precision
from small_autoencoder import SmallAutoencoder
from sprite_painter import Painter, load_sprites

PICTURES = 24_000
HELD_OUT = 256
BATCH = 16
TOGETHER = 0.6  # share of the steps in which the encoder learns as well
# The decoder learns on latents that are a little off, as those of an image network are.
LATENT_NOISE = 0.05
UNIT_PULL = 0.01
SEEDS = {"training": 1, "held out": 2}


def stills(painter: Painter, count: int, seed: int) -> Tensor:
    """b c h w in 0..255, one byte each"""
    generator = random.Random(seed)
    pictures = np.stack([painter.still(generator)[1] for _ in range(count)])
    return rearrange(torch.from_numpy(pictures), "b h w c -> b c h w").contiguous()


def as_input(pictures: Tensor) -> Tensor:
    return (pictures.float() / 255).contiguous(memory_format=torch.channels_last)


def unit_loss(latents: Tensor) -> Tensor:
    """Pulls each latent channel towards mean 0 and variance 1, which the image network's noise schedule is made for."""
    variance, mean = torch.var_mean(latents.float(), dim=(0, 2, 3))
    return (mean**2 + (variance - 1) ** 2).mean()


def picture_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    return torch.nn.functional.mse_loss(decoded.float(), pictures)


@torch.no_grad()
def encoded(network: SmallAutoencoder, pictures: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([network.encode(as_input(part)).float() for part in pictures.split(256)])


@torch.no_grad()
def reconstructed(network: SmallAutoencoder, pictures: Tensor) -> Tensor:
    """b c h w in 0..255, in full precision and rounded, as a person gets to see it."""
    decoded = torch.cat([network.decode(network.encode(as_input(part))) for part in pictures.split(64)])
    return (decoded * 255).round().clamp(0, 255).to(torch.uint8)


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, b c h w -> b"""
    error = (pictures.float() - others.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-9)
    return 10 * torch.log10(255**2 / error)


def train(run: ResumableTraining, pictures: Tensor, held_out: Tensor) -> None:
    torch.manual_seed(run.steps)
    latents, told = None, time.monotonic()
    while run.progress < 1:
        alone = run.progress >= TOGETHER
        if alone and latents is None:
            # From the running mean, because that is what stays. Its encoder is the one in the file.
            run.module.taesd_encoder.load_state_dict(run.mean.taesd_encoder.state_dict())
            run.module.taesd_encoder.requires_grad_(False)
            latents = encoded(run.mean, pictures)
        chosen = torch.randint(len(pictures), (BATCH,))
        batch = as_input(pictures[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            z = latents[chosen] if alone else run.module.encode(batch)
            decoded = run.module.decode(z + LATENT_NOISE * torch.randn(z.shape))
        loss = picture_loss(decoded, batch)
        run.step(loss if alone else loss + UNIT_PULL * unit_loss(z))
        if time.monotonic() - told > 60:
            told = time.monotonic()
            report(run, held_out, loss.item())


def report(run: ResumableTraining, held_out: Tensor, loss: float) -> None:
    quality = psnr(held_out, reconstructed(run.mean, held_out))
    latents = encoded(run.mean, held_out)
    print(
        f"{run.seconds / 60:6.1f} min  step {run.steps}  loss {loss:.5f}  held out {quality.mean():.2f} dB "
        f"(worst {quality.min():.2f})  latents {latents.mean():+.2f} +- {latents.std():.2f}, "
        f"beyond 2.5: {(latents.abs() > 2.5).float().mean():.1%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the demo's autoencoder; goes on where it was stopped.")
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--state", type=Path, default=Path(".demo/training/autoencoder.pt"))
    parser.add_argument("--weights", type=Path, default=Path("demo/weights/autoencoder.safetensors"))
    options = parser.parse_args()
    torch.manual_seed(0)
    painter = Painter(load_sprites(options.sprites))
    pictures, held_out = (stills(painter, n, s) for n, s in zip((PICTURES, HELD_OUT), SEEDS.values(), strict=True))
    network = SmallAutoencoder().to(memory_format=torch.channels_last)
    run = ResumableTraining(
        network, TrainingSettings(options.steps, rate=2e-3, ema=0.999, weight_decay=0), options.state
    )
    train(run, pictures, held_out)
    run.save()
    options.weights.parent.mkdir(parents=True, exist_ok=True)
    weights = half_precision(run.mean.state_dict().items())
    save_file(weights, options.weights, metadata={"format": "pt", "title": "autoencoder of the demo model"})
    report(run, held_out, float("nan"))
    pair = torch.stack([held_out[:16], reconstructed(run.mean, held_out[:16])])
    sheet = rearrange(pair.numpy(), "two (r n) c h w -> (r two h) (n w) c", n=8)
    Image.fromarray(sheet).resize((sheet.shape[1] * 3, sheet.shape[0] * 3), Image.Resampling.NEAREST).save(
        options.state.with_suffix(".png")
    )


if __name__ == "__main__":
    main()
