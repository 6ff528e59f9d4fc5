"""Goes on with the autoencoder's decoder alone: sharper pictures of the same latents.

    bash bin/run demo/train/decoder.py

The encoder stays as it is, so an image network that was trained on its latents fits before and after. Stopped at any
time, the same command goes on.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, load_autoencoder
from magicvideo.demo.train.autoencoder import (
    BATCH,
    HELD_OUT,
    PICTURES,
    REPORT_MINUTES,
    SEEDS,
    Stills,
    as_input,
    encoded,
    off_a_little,
    picture_loss,
    report,
    save_sheet,
    save_weights,
)
from magicvideo.demo.train.resumable_training import ResumableTraining, TrainingSettings
from magicvideo.demo.world.sprite_painter import Painter, load_sprites

STEPS = 6_000


def train(run: ResumableTraining, network: SmallAutoencoder, stills: Stills, held_out: Tensor) -> None:
    """Trains the decoder of ``network`` up to the last step of its ``run``."""
    torch.manual_seed(run.steps)
    latents, told = encoded(network, stills.pictures), time.monotonic()
    while run.progress < 1:
        chosen = torch.randint(len(latents), (BATCH,))
        pictures = as_input(stills.pictures[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            decoded = run.module(off_a_little(latents[chosen]))
        loss = picture_loss(decoded, pictures)
        run.step(loss)
        if time.monotonic() - told > 60 * REPORT_MINUTES:
            told = time.monotonic()
            report(run, with_decoder(network, run.mean), held_out, loss.item())


def with_decoder(network: SmallAutoencoder, decoder: torch.nn.Module) -> SmallAutoencoder:
    """The same encoder with this decoder's weights, in the network itself."""
    network.taesd_decoder.load_state_dict(decoder.state_dict())
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the decoder alone; goes on where it was stopped.")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--state", type=Path, default=Path(".demo/training/decoder.pt"))
    parser.add_argument("--weights", type=Path, default=Path("demo/weights/autoencoder.safetensors"))
    options = parser.parse_args()
    painter = Painter(load_sprites(options.sprites))
    stills = Stills.drawn(painter, PICTURES, SEEDS["training"])
    held_out = Stills.drawn(painter, HELD_OUT, SEEDS["held out"]).pictures
    network = load_autoencoder(options.weights)
    decoder = load_autoencoder(options.weights).taesd_decoder.requires_grad_(True).train()
    decoder.to(memory_format=torch.channels_last)
    run = ResumableTraining(decoder, TrainingSettings(options.steps, 1e-3, ema=0.999, weight_decay=0), options.state)
    train(run, network, stills, held_out)
    run.save()
    report(run, with_decoder(network, run.mean), held_out)
    save_weights(network, options.weights)
    save_sheet(network, held_out[:16], options.state.with_suffix(".png"))


if __name__ == "__main__":
    main()
