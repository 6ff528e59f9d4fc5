"""Writes the demo's checkpoint: the trained narrow weights, padded, and the generated text encoder.

    bash bin/run demo/model/make_checkpoint.py models/checkpoints/magicvideo_demo.safetensors

What is shipped (demo/weights) is small; this file has the full layout, which ComfyUI loads as SD1.5.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTokenizer

from magicvideo.demo.model import small_autoencoder
from magicvideo.demo.model.compact_checkpoint import (
    LATENT_SCALE,
    checkpoint_shapes,
    text_encoder_weights,
    write_weights,
)
from magicvideo.demo.model.padding import padded_unet
from magicvideo.demo.model.sizes import AUTOENCODER, TEXT_CHANNELS, TOKENS, UNET
from magicvideo.demo.world.vocabulary import word_vector
from magicvideo.demo.world.words import MEANINGS
from magicvideo.tools.host_in_process import PACK, find_host

WEIGHTS = PACK / "demo" / "weights"
BASE, VAE = WEIGHTS / "base.safetensors", WEIGHTS / "autoencoder.safetensors"


def token_vectors(tokenizer: CLIPTokenizer) -> Tensor:
    """``t d``: the vector of each known word at the word's token, zero elsewhere.

    Raises ValueError for a known word that the tokenizer takes apart.
    """
    vectors = torch.zeros(TOKENS, TEXT_CHANNELS)
    for word, meaning in MEANINGS.items():
        tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1:
            raise ValueError(f"a known word must be one token, but {word!r} is {len(tokens)}")
        vectors[tokens[0]] = word_vector(meaning)
    return vectors


def demo_checkpoint(
    base: dict[str, Tensor], autoencoder: dict[str, Tensor], tokenizer: CLIPTokenizer
) -> dict[str, Tensor]:
    """All tensors of the checkpoint, by name.  Raises ValueError when the weights don't make one."""
    weights = {UNET + name: weight for name, weight in padded_unet(base).items()}
    weights |= small_autoencoder.padded(autoencoder)
    # ComfyUI hands on latents of the size of SD1.5's; the autoencoder works on the image network's own.
    weights[f"{AUTOENCODER}vae_scale"] = torch.tensor(LATENT_SCALE)
    weights[f"{AUTOENCODER}vae_shift"] = torch.tensor(0.0)
    weights |= text_encoder_weights(token_vectors(tokenizer))
    wrong = {n for n, shape in checkpoint_shapes().items() if n not in weights or tuple(weights[n].shape) != shape}
    wrong |= weights.keys() - checkpoint_shapes().keys()
    if wrong:
        raise ValueError(f"the weights are of another network: {', '.join(sorted(wrong)[:5])}")
    return weights


def host_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer as ComfyUI carries it."""
    return CLIPTokenizer.from_pretrained(find_host() / "comfy" / "sd1_tokenizer")


def write_demo_checkpoint(path: Path, base: Path = BASE, autoencoder: Path = VAE) -> None:
    """Writes the checkpoint of the given narrow weights.  Raises ValueError when they don't make one."""
    weights = demo_checkpoint(load_file(base), load_file(autoencoder), host_tokenizer())
    write_weights(path, weights, "MagicVideo demo model")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the demo's checkpoint from the shipped weights.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--autoencoder", type=Path, default=VAE)
    options = parser.parse_args()
    write_demo_checkpoint(options.path, options.base, options.autoencoder)
    print(f"{options.path} ({options.path.stat().st_size / 2**20:.0f} MB)")


if __name__ == "__main__":
    main()
