"""What effects add to the host's plan of memory, and what going through the UNet in chunks takes off it.

The host asks a model how many bytes a latent batch of some shape will need.  The only public way to ask for more or
less is another batch: of a chunk's frames, and of as many frames more as the effects' tensors weigh.
"""

import math
from collections.abc import Sequence

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..sites import Site
from .base_model import unet_of
from .call_part import ModelOptions
from .effect import Effect

# Bytes of a number in the temporal tensors, at most.
ACTIVATION_BYTES = 4
# Conditional and unconditional part.
SIDES_OF_GUIDANCE = 2


def planned_shape(
    model: ModelPatcher, noise_shape: Sequence[int], effects: Sequence[Effect], at_once: int, offloaded: bool
) -> list[int]:
    """``n c h w`` of a batch that weighs as much as one call of the UNet with all of these.

    ``at_once`` frames go through the UNet together; what is kept of the others may be ``offloaded`` to main memory.
    """
    total, *sides = noise_shape
    frames, size = min(total, at_once), sides[-2:]
    extra = sum(effect.activation_bytes(model, frames, *size) for effect in effects)
    if total > at_once and not offloaded:
        extra += sum(effect.cache_bytes(model, total, *size) for effect in effects)
    return [frames + math.ceil(extra / model.memory_required([1, *sides])) if extra else frames, *sides]


def plan_last(key: str, model_options: ModelOptions) -> None:
    """Lets the planning wrapper of that key come last in a sampling with these options, in whichever order nodes came.

    The host's context windows plan for a window's frames, and would take back what was added before.
    """
    planning = model_options["transformer_options"]["wrappers"][WrappersMP.PREPARE_SAMPLING]
    planning[key] = planning.pop(key)


def kept_bytes(model: ModelPatcher, sites: Sequence[Site], kept: int, height: int, width: int) -> int:
    """Keys and values of ``kept`` frames at these transformers; each counts at the finest level of its width."""
    unet = unet_of(model)
    widths = [multiple * unet.model_channels for multiple in unet.channel_mult]
    numbers = sum(
        site.channels * math.prod(math.ceil(side / 2 ** widths.index(site.channels)) for side in (height, width))
        for site in sites
    )
    return SIDES_OF_GUIDANCE * 2 * kept * numbers * ACTIVATION_BYTES
