"""What attention over frames adds to the host's plan of memory, and what causal windows take off it.

The host asks a model how many bytes a latent batch of some shape will need.  The only public way to ask for more or
less is another batch: of a chunk's frames, and of as many frames more as the temporal tensors weigh.
"""

import math
from collections.abc import Sequence

from comfy.model_patcher import ModelPatcher

from ..directed_attention import MOST_QUERIES
from ..look_back import LookBack
from ..sites import Site
from .base_model import unet_of
from .causal_windows import CausalWindows
from .directed_attention import DirectedAttention
from .motion import Motion

# Tensors of a block's size that live at once beside the host's own: the block's input, its self-attention, and the
# temporal output, whose queries, keys and values come and go in pieces.
HELD_TENSORS = 3
BYTES = 4
# Conditional and unconditional part.
PARTS = 2


def planned_shape(
    model: ModelPatcher,
    noise_shape: Sequence[int],
    motions: Sequence[Motion],
    looks: Sequence[DirectedAttention],
    windows: CausalWindows | None,
) -> list[int]:
    """``n c h w`` of a batch that weighs as much as one call of the UNet with all of these."""
    total, *sides = noise_shape
    frames, size = min(total, windows.chunk_frames) if windows else total, sides[-2:]
    looks = [look for look in looks if look.strength]
    extra = sum(activation_bytes(model, frames, *size) for _ in motions)
    extra += max((gathered_bytes(model, look.look_back, frames, *size) for look in looks), default=0)
    if windows and total > windows.chunk_frames and not windows.offload:
        for motion in motions:
            if "temporal" in motion.adaptor.config.parts:
                config = motion.adaptor.config
                extra += past_bytes(model, config.transformers, min(total, config.frames - 1), *size)
        extra += sum(past_bytes(model, look.sites, look.look_back.most(total - 1), *size) for look in looks)
    return [frames + math.ceil(extra / model.memory_required([1, *sides])) if extra else frames, *sides]


def activation_bytes(model: ModelPatcher, frames: int, height: int, width: int) -> int:
    """The activations of the widest block."""
    return PARTS * frames * height * width * unet_of(model).model_channels * BYTES * HELD_TENSORS


def gathered_bytes(model: ModelPatcher, look_back: LookBack, frames: int, height: int, width: int) -> int:
    """Keys and values that one attention call of the widest block reads, and those of its chunk with the past."""
    seen, at_once = 1 + look_back.most(frames), max(1, MOST_QUERIES // (height * width))
    gathered = min(PARTS * frames, at_once) * seen + frames + look_back.most(frames)
    return 2 * gathered * height * width * unet_of(model).model_channels * BYTES


def past_bytes(model: ModelPatcher, sites: Sequence[Site], kept: int, height: int, width: int) -> int:
    """Keys and values that causal windows keep at these transformers; each counts at the finest level of its width."""
    unet = unet_of(model)
    widths = [multiple * unet.model_channels for multiple in unet.channel_mult]
    numbers = sum(
        site.channels * math.prod(math.ceil(side / 2 ** widths.index(site.channels)) for side in (height, width))
        for site in sites
    )
    return PARTS * 2 * kept * numbers * BYTES
