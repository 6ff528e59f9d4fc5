"""Trains the demo's autoencoder on stills of moving sprites.

    bash bin/run demo/train/autoencoder.py

Stopped at any time, the same command goes on. At first it learns on pieces of pictures around the sprite, because the
flat rest teaches little and costs as much; then on whole pictures, whose edges look different from those of a piece.
Its decoder can go on learning later (decoder.py), while the latents stay as they are.

Axes: b pictures, c channels, h height, w width.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, as_bytes
from magicvideo.demo.train.resumable_training import ResumableTraining, TrainingSettings, half_precision
from magicvideo.demo.world.sprite_painter import Painter, load_sprites
from magicvideo.demo.world.sprite_scene import SIDE

PICTURES, HELD_OUT = 24_000, 128
SEEDS = {"training": 1, "held out": 2}
BATCH = 16
PIECE = SIDE // 2
STEPS = 7_000
WHOLE = 0.85  # share of the steps after which whole pictures begin
LATENT_NOISE = 0.05
UNIT_PULL = 0.01
REPORT_MINUTES = 2.0


@dataclass(frozen=True)
class Stills:
    """``pictures``: b c h w in 0..255, one byte each.  ``corners``: b 2, upper left of a piece with the sprite."""

    pictures: Tensor
    corners: Tensor

    @classmethod
    def drawn(cls, painter: Painter, count: int, seed: int) -> "Stills":
        """``count`` stills, drawn at random from the seed."""
        generator = random.Random(seed)
        pictures, corners = [], []
        for _ in range(count):
            still = painter.still(generator)
            pictures.append(still.picture)
            corners.append([piece_start(place, generator) for place in (still.y, still.x)])
        together = rearrange(torch.from_numpy(np.stack(pictures)), "b h w c -> b c h w").contiguous()
        return cls(together, torch.tensor(corners))

    def pieces(self, chosen: Tensor) -> Tensor:
        """b -> b c h w: of each chosen still a piece around the sprite, PIECE high and wide."""
        corners = self.corners[chosen].tolist()
        pictures = zip(self.pictures[chosen], corners, strict=True)
        return torch.stack([picture[:, top : top + PIECE, left : left + PIECE] for picture, (top, left) in pictures])


def piece_start(centre: float, generator: random.Random) -> int:
    """Where a piece begins so that a sprite with this centre lies within it, at least by half."""
    return min(max(round(centre - generator.uniform(0.2, 0.8) * PIECE), 0), SIDE - PIECE)


def as_input(pictures: Tensor) -> Tensor:
    """b c h w in 0..255 -> b c h w in 0..1"""
    return (pictures.float() / 255).contiguous(memory_format=torch.channels_last)


def unit_loss(latents: Tensor) -> Tensor:
    """Pulls each latent channel towards mean 0 and variance 1, which the image network's noise schedule is made for."""
    variance, mean = torch.var_mean(latents.float(), dim=(0, 2, 3))
    return (mean**2 + (variance - 1) ** 2).mean()


def picture_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """The mean squared error of decoded pictures, b c h w in 0..1."""
    return torch.nn.functional.mse_loss(decoded.float(), pictures)


def off_a_little(latents: Tensor) -> Tensor:
    """Latents with a little noise, as those of an image network are off, so that the decoder forgives it."""
    return latents + LATENT_NOISE * torch.randn(latents.shape)


@torch.no_grad()
def encoded(network: SmallAutoencoder, pictures: Tensor) -> Tensor:
    """b c h w in 0..255 -> b c h w: the latents of pictures."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([network.encode(as_input(part)).float() for part in pictures.split(256)])


@torch.no_grad()
def reconstructed(network: SmallAutoencoder, pictures: Tensor) -> Tensor:
    """b c h w in 0..255 -> b c h w in 0..255: encoded, decoded in full precision and rounded, as a person sees it."""
    return as_bytes(torch.cat([network.decode(network.encode(as_input(part))) for part in pictures.split(64)]))


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, b c h w -> b"""
    error = (pictures.float() - others.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-9)
    return 10 * torch.log10(255**2 / error)


def train(run: ResumableTraining, stills: Stills, held_out: Tensor) -> None:
    """Trains up to the last step of the run, and says now and then how good it is on pictures that were held out."""
    torch.manual_seed(run.steps)
    told = time.monotonic()
    while run.progress < 1:
        chosen = torch.randint(len(stills.pictures), (BATCH,))
        pictures = as_input(stills.pieces(chosen) if run.progress < WHOLE else stills.pictures[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            latents = run.module.encode(pictures)
            decoded = run.module.decode(off_a_little(latents))
        loss = picture_loss(decoded, pictures)
        run.step(loss + UNIT_PULL * unit_loss(latents))
        if time.monotonic() - told > 60 * REPORT_MINUTES:
            told = time.monotonic()
            report(run, run.mean, held_out, loss.item())


def report(run: ResumableTraining, network: SmallAutoencoder, held_out: Tensor, loss: float | None = None) -> None:
    """Prints how good the network is on pictures that were held out, b c h w in 0..255, and the last loss."""
    quality = psnr(held_out, reconstructed(network, held_out))
    latents = encoded(network, held_out)
    told = "" if loss is None else f"loss {loss:.5f}  "
    print(
        f"{run.seconds / 60:6.1f} min  step {run.steps}  {told}held out {quality.mean():.2f} dB "
        f"(worst {quality.min():.2f})  latents {latents.mean():+.2f} +- {latents.std():.2f}, "
        f"beyond 2.5: {(latents.abs() > 2.5).float().mean():.1%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the demo's autoencoder; goes on where it was stopped.")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--state", type=Path, default=Path(".demo/training/autoencoder.pt"))
    parser.add_argument("--weights", type=Path, default=Path("demo/weights/autoencoder.safetensors"))
    options = parser.parse_args()
    torch.manual_seed(0)
    painter = Painter(load_sprites(options.sprites))
    stills = Stills.drawn(painter, PICTURES, SEEDS["training"])
    held_out = Stills.drawn(painter, HELD_OUT, SEEDS["held out"]).pictures
    network = SmallAutoencoder().to(memory_format=torch.channels_last)
    settings = TrainingSettings(options.steps, rate=1.5e-3, ema=0.999, weight_decay=0, fall=0.5)
    run = ResumableTraining(network, settings, options.state)
    train(run, stills, held_out)
    run.save()
    report(run, run.mean, held_out)
    save_weights(run.mean, options.weights)
    save_sheet(run.mean, held_out[:16], options.state.with_suffix(".png"))


def save_weights(network: SmallAutoencoder, path: Path) -> None:
    """Writes the weights that are shipped, in fp16."""
    weights = half_precision(network.state_dict().items())
    save_tensors(path, weights, {"format": "pt", "title": "autoencoder of the demo model"})


def save_sheet(network: SmallAutoencoder, pictures: Tensor, path: Path) -> None:
    """Saves a sheet of pictures, each above what comes back of it, three times enlarged."""
    pair = torch.stack([pictures, reconstructed(network, pictures)])
    sheet = Image.fromarray(rearrange(pair.numpy(), "two (r n) c h w -> (r two h) (n w) c", n=8))
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
