"""Writes a compact checkpoint of random numbers that ComfyUI loads as SD1.5 (same seed, same file).

    bash bin/run tools/make_random_checkpoint.py models/checkpoints/compact.safetensors --seed 0

Its pictures look like noise. It is for trying the pack and for its tests, where the way through ComfyUI counts and the
picture doesn't. On request a ControlNet or a LoRA for the same image network is written instead.
"""

import argparse
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from magicvideo.demo.model.compact_checkpoint import (
    LATENT_SCALE,
    TOKEN_VECTORS,
    Shape,
    checkpoint_shapes,
    controlnet_shapes,
    lora_shapes,
    text_encoder_weights,
    write_weights,
)
from magicvideo.demo.model.sizes import AUTOENCODER, TEXT


def random_tensor(name: str, shape: Shape, seed: int) -> Tensor:
    """Unit-variance weights, plain norms, zero biases. Each name has its own seed, so the order does not matter."""
    if len(shape) < 2:
        is_norm_weight = name.endswith(".weight")
        return torch.ones(shape) if is_norm_weight else torch.zeros(shape)
    generator = torch.Generator().manual_seed(seed * 2**32 + zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def random_checkpoint(seed: int) -> dict[str, Tensor]:
    shapes = checkpoint_shapes()
    weights = {name: random_tensor(name, shape, seed) for name, shape in shapes.items() if not name.startswith(TEXT)}
    for name in weights:
        if name.startswith(AUTOENCODER):
            weights[name] *= _autoencoder_gain(name)
    weights[f"{AUTOENCODER}vae_scale"] = torch.tensor(LATENT_SCALE)
    weights[f"{AUTOENCODER}vae_shift"] = torch.tensor(0.0)
    # Mid-grey in the middle of the range, so that pictures are not clipped to black.
    weights[f"{AUTOENCODER}taesd_decoder.19.bias"] += 0.5
    token_vectors = random_tensor(TOKEN_VECTORS, shapes[TOKEN_VECTORS], seed)
    return weights | text_encoder_weights(token_vectors)


def _autoencoder_gain(name: str) -> float:
    """Keeps the size of the features about level through ten blocks that each add to what they get."""
    if name.endswith("conv.4.weight"):
        return 0.3
    return 0.3 if "taesd_decoder.19" in name else math.sqrt(2)


def random_controlnet(seed: int) -> dict[str, Tensor]:
    weights = {name: random_tensor(name, shape, seed) for name, shape in controlnet_shapes().items()}
    for name in weights:
        # A hint is a nudge: as strong as the features themselves it would drown them.
        if ".zero_convs." in name or ".middle_block_out." in name:
            weights[name] *= 0.3
    return weights


def random_lora(seed: int) -> dict[str, Tensor]:
    return {name: random_tensor(name, shape, seed) for name, shape in lora_shapes().items()}


MAKERS = {"checkpoint": random_checkpoint, "controlnet": random_controlnet, "lora": random_lora}


def write_random(path: Path, kind: str = "checkpoint", seed: int = 0) -> None:
    """Writes a random model of a kind of MAKERS."""
    write_weights(path, MAKERS[kind](seed), f"random compact {kind}, seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a compact, randomly initialised SD1.5 model file.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--kind", choices=sorted(MAKERS), default="checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_random(options.path, options.kind, options.seed)
    print(f"{options.path} ({options.path.stat().st_size / 2**20:.0f} MB)")


if __name__ == "__main__":
    main()
