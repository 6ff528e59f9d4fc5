"""A new adaptor for a loaded model."""

from functools import partial

from comfy.model_patcher import ModelPatcher

from ..initialisation import Init, new_adaptor
from .base_model import config_for, unet_weight
from .hosted import hosted


def fresh_adaptor(
    model: ModelPatcher, frames: int = 16, rank: int = 0, init: Init = "spatial", seed: int = 0
) -> ModelPatcher:
    """An identity adaptor that fits the model.  Raises ValueError for another kind of model."""
    return hosted(new_adaptor(config_for(model, frames=frames, rank=rank), init, seed, partial(unet_weight, model)))
