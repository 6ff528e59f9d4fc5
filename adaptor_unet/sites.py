"""Where an adaptor acts inside a Stable Diffusion UNet: a table of names, found by patterns over ``named_modules``."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

SiteKind = Literal["convolution", "transformer"]
# Which blocks of a spatial transformer are sites: SDXL has up to ten in one, SD1.5 and SD2 one in each.
AttentionAt = Literal["every_block", "first_block"]
# Of a new adaptor: in SDXL the first blocks alone add a fifth of the time that all add (docs/using.md).
ATTENTION_AT: AttentionAt = "first_block"

CONVOLUTION = re.compile(
    r"input_blocks\.0\.0"
    r"|(input_blocks\.[1-9]\d*|output_blocks\.\d+|middle_block)\.\d+\.(in_layers\.2|out_layers\.3|op|conv)"
)
TRANSFORMER = re.compile(r"(input_blocks\.\d+|output_blocks\.\d+|middle_block)\.\d+\.transformer_blocks\.\d+")


@dataclass(frozen=True)
class Site:
    """One place of the UNet: the name of its module, which is also the checkpoint key, and its channels."""

    name: str
    kind: SiteKind
    channels: int

    def __post_init__(self) -> None:
        pattern = {"convolution": CONVOLUTION, "transformer": TRANSFORMER}.get(str(self.kind))
        if pattern is None or not isinstance(self.name, str) or not pattern.fullmatch(self.name):
            raise ValueError(f"no such place in a UNet: {self.kind!r} {self.name!r}")
        if type(self.channels) is not int or not 0 < self.channels <= 65_536:
            raise ValueError(f"{self.name}: channels must be a positive whole number, found {self.channels!r}")

    @cached_property
    def block(self) -> tuple[str, int, int]:
        """Place of a transformer as the host counts it: side, block of that side, transformer of that block."""
        parts = self.name.split(".")
        number = int(parts[1]) if parts[0] != "middle_block" else 0
        return parts[0].split("_")[0], number, int(parts[-1])


def find_sites(unet: nn.Module, attention_at: AttentionAt = "every_block") -> tuple[Site, ...]:
    """Every 3x3 convolution of the blocks (SD1.5: 51) and every transformer (SD1.5: 16), in the order of the UNet.

    Of a spatial transformer with several blocks, every one or the first alone.
    """
    sites = []
    for name, module in unet.named_modules():
        if CONVOLUTION.fullmatch(name) and getattr(module, "kernel_size", None) == (3, 3):
            sites.append(Site(name, "convolution", module.out_channels))
        elif TRANSFORMER.fullmatch(name) and (attention_at == "every_block" or name.endswith(".0")):
            sites.append(Site(name, "transformer", module.norm1.normalized_shape[0]))
    return tuple(sites)
