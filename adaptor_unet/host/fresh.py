"""A new adaptor for a loaded model."""

from functools import partial

from comfy.model_patcher import ModelPatcher

from ..adaptor import VideoAdaptor
from ..initialisation import Init, new_adaptor
from .base_model import config_for, unet_weight
from .hosted import hosted


def adaptor_for(model: ModelPatcher, init: Init = "spatial", seed: int = 0, **settings: object) -> VideoAdaptor:
    """An identity adaptor that fits the model; ``settings`` are further fields of AdaptorConfig.

    Raises ValueError for another kind of model.
    """
    return new_adaptor(config_for(model, **settings), init, seed, partial(unet_weight, model))


def fresh_adaptor(
    model: ModelPatcher, frames: int = 16, rank: int = 0, init: Init = "spatial", seed: int = 0
) -> ModelPatcher:
    """The same in the host's hands."""
    return hosted(adaptor_for(model, init, seed, frames=frames, rank=rank))
