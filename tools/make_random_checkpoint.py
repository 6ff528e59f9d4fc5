"""Writes a compact checkpoint of random numbers that ComfyUI loads as SD1.5 (same seed, same file).

    bash bin/run tools/make_random_checkpoint.py models/checkpoints/compact.safetensors --seed 0

Its pictures look like noise. It is for trying the pack and for its tests, where the way through ComfyUI counts and the
picture doesn't. On request a ControlNet or a LoRA for the same image network is written instead, or a motion module
(AnimateDiff v1 to v3, AnimateLCM) or a MotionLoRA, for SD1.5 itself or, by --size, for a smaller UNet.
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
from magicvideo.tools.motion_module_files import (
    SIZES,
    VARIANTS,
    Size,
    motion_lora_shapes,
    official_shapes,
    position_table,
)


def random_tensor(name: str, shape: Shape, seed: int) -> Tensor:
    """A tensor of that name: unit-variance weights, plain norms, zero biases. Each name has its own seed."""
    if len(shape) < 2:
        is_norm_weight = name.endswith(".weight")
        return torch.ones(shape) if is_norm_weight else torch.zeros(shape)
    # The seed begins the checksum: on a processor torch looks at no more than 32 bits.
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def random_checkpoint(seed: int) -> dict[str, Tensor]:
    """All tensors of a checkpoint, by name."""
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
    """All tensors of a ControlNet for that checkpoint, by name."""
    weights = {name: random_tensor(name, shape, seed) for name, shape in controlnet_shapes().items()}
    for name in weights:
        # A hint is a nudge: as strong as the features themselves it would drown them.
        if ".zero_convs." in name or ".middle_block_out." in name:
            weights[name] *= 0.3
    return weights


def random_lora(seed: int) -> dict[str, Tensor]:
    """All tensors of a LoRA for that checkpoint, by name."""
    return {name: random_tensor(name, shape, seed) for name, shape in lora_shapes().items()}


def random_motion_module(seed: int, variant: str = "v3", size: Size = SIZES["full"]) -> dict[str, Tensor]:
    """A public motion module by its names and shapes.  What it adds is a nudge, of a third of the features' size."""
    weights = {}
    for name, shape in official_shapes(size, VARIANTS[variant]).items():
        if name.endswith(".pe"):
            weights[name] = position_table(*shape[1:])
        else:
            weights[name] = random_tensor(name, shape, seed) * (0.3 if "proj_out.weight" in name else 1.0)
    return weights


def random_motion_lora(seed: int, variant: str = "v2", size: Size = SIZES["full"]) -> dict[str, Tensor]:
    """A MotionLoRA for a motion module of this kind."""
    shapes = motion_lora_shapes(size, VARIANTS[variant].mid)
    return {name: random_tensor(name, shape, seed) for name, shape in shapes.items()}


MAKERS = {"checkpoint": random_checkpoint, "controlnet": random_controlnet, "lora": random_lora}
MOTION_MAKERS = {"motion_module": random_motion_module, "motion_lora": random_motion_lora}


def write_random(path: Path, kind: str = "checkpoint", seed: int = 0) -> None:
    """Writes a random model of a kind of MAKERS."""
    write_weights(path, MAKERS[kind](seed), f"random compact {kind}, seed {seed}")


def write_random_motion(path: Path, kind: str, seed: int = 0, variant: str = "v3", size: str = "full") -> None:
    """Writes a random file of a kind of MOTION_MAKERS; one that ends in .ckpt is pickled, as the public ones are."""
    weights = MOTION_MAKERS[kind](seed, variant, SIZES[size])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ckpt":
        torch.save(weights, path)
    else:
        write_weights(path, weights, f"random {kind} {variant}, seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a compact, randomly initialised SD1.5 model file.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--kind", choices=sorted(MAKERS | MOTION_MAKERS), default="checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="v3", help="of a motion module or a MotionLoRA")
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="of a motion module or a MotionLoRA")
    options = parser.parse_args()
    if options.kind in MOTION_MAKERS:
        write_random_motion(options.path, options.kind, options.seed, options.variant, options.size)
    else:
        write_random(options.path, options.kind, options.seed)
    print(f"{options.path} ({options.path.stat().st_size / 2**20:.0f} MB)")


if __name__ == "__main__":
    main()
