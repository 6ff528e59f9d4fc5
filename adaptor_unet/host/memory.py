"""What temporal attention adds to the host's plan of memory.

The host asks a model how many bytes a latent batch of some shape will need.  The only public way to ask for more is a
larger batch, so the batch is enlarged by as many frames as the temporal activations weigh.
"""

import math

from comfy.model_patcher import ModelPatcher

from .base_model import unet_of

# Tensors of a block's size that live at once beside the host's own: the block's input, its self-attention, and the
# temporal output, whose queries, keys and values come and go in pieces.
HELD_TENSORS = 3
BYTES = 4


def with_temporal_memory(model: ModelPatcher, noise_shape: list[int], motions: int) -> list[int]:
    """``n c h w`` with more frames: the activations of the widest block for cond and uncond together."""
    frames, _, height, width = noise_shape
    extra = 2 * frames * height * width * unet_of(model).model_channels * BYTES * HELD_TENSORS * motions
    a_frame = model.memory_required([1, *noise_shape[1:]])
    return [frames + math.ceil(extra / a_frame), *noise_shape[1:]]
