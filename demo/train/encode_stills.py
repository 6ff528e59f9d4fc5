"""Draws captioned stills and encodes them once, so that training the image network reads latents alone.

    bash bin/run demo/train/encode_stills.py

The file holds ``latents`` (n c h w, fp16, of unit variance) and ``words`` (n k): for each caption the numbers of its
meanings in MEANING_NUMBERS, 0 for none.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, load_autoencoder
from magicvideo.demo.train.autoencoder import encoded
from magicvideo.demo.world.captions import caption
from magicvideo.demo.world.sprite_painter import Painter, load_sprites
from magicvideo.demo.world.vocabulary import word_vector
from magicvideo.demo.world.words import SYNONYMS, meanings_of

COUNT, HELD_OUT = 24_000, 256
SEEDS = {"training": 11, "held_out": 12}
PART = 512
# Subject, background and direction.
MOST_WORDS = 3
MEANING_NUMBERS = {meaning: number for number, meaning in enumerate(SYNONYMS, start=1)}


def word_table() -> Tensor:
    """``m d``: the vector of each meaning by its number; row 0 is zero, as of every other token."""
    vectors = [word_vector(meaning) for meaning in MEANING_NUMBERS]
    return torch.stack([torch.zeros_like(vectors[0]), *vectors])


def word_numbers(text: str) -> list[int]:
    """The numbers of a caption's known words, MOST_WORDS of them.  Raises ValueError for a caption of more."""
    numbers = [MEANING_NUMBERS[meaning] for meaning in meanings_of(text)]
    if len(numbers) > MOST_WORDS:
        raise ValueError(f"at most {MOST_WORDS} known words expected in {text!r}")
    return numbers + [0] * (MOST_WORDS - len(numbers))


def encoded_stills(painter: Painter, network: SmallAutoencoder, count: int, seed: int) -> dict[str, Tensor]:
    """``count`` stills, drawn from the seed, as the file holds them: ``latents`` and ``words``."""
    generator = random.Random(seed)
    latents, words = [], []
    while len(words) < count:
        part = [painter.still(generator) for _ in range(min(PART, count - len(words)))]
        words += [word_numbers(caption(still.scene, generator)) for still in part]
        pictures = np.stack([still.picture for still in part])
        latents.append(encoded(network, rearrange(torch.from_numpy(pictures), "n h w c -> n c h w")))
    return {"latents": torch.cat(latents).half().contiguous(), "words": torch.tensor(words, dtype=torch.int16)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws captioned stills and encodes them.")
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--autoencoder", type=Path, default=Path("demo/weights/autoencoder.safetensors"))
    parser.add_argument("--folder", type=Path, default=Path(".demo/training"))
    options = parser.parse_args()
    painter, network = Painter(load_sprites(options.sprites)), load_autoencoder(options.autoencoder)
    for (name, seed), count in zip(SEEDS.items(), (COUNT, HELD_OUT), strict=True):
        stills = encoded_stills(painter, network, count, seed)
        save_tensors(options.folder / f"stills_{name}.safetensors", stills)
        latents = stills["latents"].float()
        print(f"{count} stills, {name}: mean {latents.mean():+.3f}, deviation {latents.std():.3f}", flush=True)


if __name__ == "__main__":
    main()
