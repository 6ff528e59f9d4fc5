"""Names and shapes in the files of public motion modules and MotionLoRAs, in AnimateDiff's own layout.

Written down from what such files hold, so that a random one is read as a real one is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from magicvideo.demo.model.compact_checkpoint import Shape

LORA_RANK = 64


@dataclass(frozen=True)
class Size:
    """The UNet that a module is for: channels of its levels, and residual blocks of each on the way down."""

    widths: tuple[int, ...]
    depth: int = 2


SIZES = {
    "full": Size((320, 640, 1280, 1280)),  # SD1.5
    "narrow": Size((32, 64, 128, 128)),  # a tenth of it
    "compact": Size((320, 320), depth=1),  # the checkpoint of demo/model/compact_checkpoint.py
}


@dataclass(frozen=True)
class Variant:
    """A public kind of file: whether it has a middle block, and the length of its position encoding, 0 for none."""

    mid: bool
    positions: int


VARIANTS = {
    "v1": Variant(mid=False, positions=24),
    "v2": Variant(mid=True, positions=32),
    "v3": Variant(mid=False, positions=32),
    "lcm": Variant(mid=True, positions=0),
}


def places(size: Size, mid: bool) -> dict[str, int]:
    """The channels of each temporal transformer, by its name."""
    levels, widths = range(len(size.widths)), size.widths
    found = {f"down_blocks.{i}.motion_modules.{j}": widths[i] for i in levels for j in range(size.depth)}
    found |= {f"up_blocks.{i}.motion_modules.{j}": widths[-1 - i] for i in levels for j in range(size.depth + 1)}
    return found | ({"mid_block.motion_modules.0": widths[-1]} if mid else {})


def official_shapes(size: Size, variant: Variant) -> dict[str, Shape]:
    """Names and shapes of a module in AnimateDiff's own layout: 28 tensors a place, 26 without positions."""
    shapes: dict[str, Shape] = {}
    for place, c in places(size, variant.mid).items():
        own: dict[str, Shape] = {}
        for name, shape in {
            "norm": (c,),
            "proj_in": (c, c),
            "proj_out": (c, c),
            "transformer_blocks.0.norms.0": (c,),
            "transformer_blocks.0.norms.1": (c,),
            "transformer_blocks.0.ff_norm": (c,),
            "transformer_blocks.0.ff.net.0.proj": (8 * c, c),
            "transformer_blocks.0.ff.net.2": (c, 4 * c),
            "transformer_blocks.0.attention_blocks.0.to_out.0": (c, c),
            "transformer_blocks.0.attention_blocks.1.to_out.0": (c, c),
        }.items():
            own |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for number in (0, 1):
            attention = f"transformer_blocks.0.attention_blocks.{number}"
            own |= {f"{attention}.to_{part}.weight": (c, c) for part in "qkv"}
            if variant.positions:
                own[f"{attention}.pos_encoder.pe"] = (1, variant.positions, c)
        shapes |= {f"{place}.temporal_transformer.{name}": shape for name, shape in own.items()}
    return shapes


def motion_lora_shapes(size: Size, mid: bool = True, rank: int = LORA_RANK) -> dict[str, Shape]:
    """Names and shapes of AnimateDiff's MotionLoRA: two matrices for each of the eight attention weights of a place."""
    shapes: dict[str, Shape] = {}
    for place, c in places(size, mid).items():
        for number in (0, 1):
            inner = f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.{number}.processor"
            for part in ("q", "k", "v", "out"):
                shapes[f"{inner}.to_{part}_lora.down.weight"] = (rank, c)
                shapes[f"{inner}.to_{part}_lora.up.weight"] = (c, rank)
    return shapes


def position_table(length: int, channels: int) -> Tensor:
    """The position encoding as the files hold it, ``1 length channels``."""
    rate = 10_000 ** (-torch.arange(0, channels, 2) / channels)
    angle = torch.arange(length)[:, None] * rate
    table = torch.zeros(1, length, channels)
    table[0, :, 0::2], table[0, :, 1::2] = angle.sin(), angle.cos()
    return table
