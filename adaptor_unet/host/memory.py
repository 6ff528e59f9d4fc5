"""What temporal attention adds to the host's plan of memory, and what causal windows take off it.

The host asks a model how many bytes a latent batch of some shape will need.  The only public way to ask for more or
less is another batch: of a chunk's frames, and of as many frames more as the temporal tensors weigh.
"""

import math
from collections.abc import Sequence

from comfy.model_patcher import ModelPatcher

from ..adaptor import AdaptorConfig
from .base_model import unet_of
from .causal_windows import CausalWindows
from .motion import Motion

# Tensors of a block's size that live at once beside the host's own: the block's input, its self-attention, and the
# temporal output, whose queries, keys and values come and go in pieces.
HELD_TENSORS = 3
BYTES = 4
# Conditional and unconditional part.
PARTS = 2


def planned_shape(
    model: ModelPatcher, noise_shape: Sequence[int], motions: Sequence[Motion], windows: CausalWindows | None
) -> list[int]:
    """``n c h w`` of a batch that weighs as much as one call of the UNet with these motions and windows."""
    total, *sides = noise_shape
    frames = min(total, windows.chunk_frames) if windows else total
    extra = sum(activation_bytes(model, frames, *sides[-2:]) for _ in motions)
    if windows and total > windows.chunk_frames and not windows.offload:
        extra += sum(past_bytes(model, motion.adaptor.config, total, *sides[-2:]) for motion in motions)
    return [frames + math.ceil(extra / model.memory_required([1, *sides])) if extra else frames, *sides]


def activation_bytes(model: ModelPatcher, frames: int, height: int, width: int) -> int:
    """The activations of the widest block."""
    return PARTS * frames * height * width * unet_of(model).model_channels * BYTES * HELD_TENSORS


def past_bytes(model: ModelPatcher, config: AdaptorConfig, frames: int, height: int, width: int) -> int:
    """Keys and values that causal windows keep at all sites; each site counts at the finest level of its width."""
    unet = unet_of(model)
    widths = [multiple * unet.model_channels for multiple in unet.channel_mult]
    numbers = sum(
        site.channels * math.prod(math.ceil(side / 2 ** widths.index(site.channels)) for side in (height, width))
        for site in (config.transformers if "temporal" in config.parts else ())
    )
    return PARTS * 2 * min(frames, config.frames - 1) * numbers * BYTES
