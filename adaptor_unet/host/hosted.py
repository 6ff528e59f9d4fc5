"""Adaptors as the host holds them: a ModelPatcher, so that the host loads, offloads and frees one like any model."""

import comfy.model_management
import comfy.ops
from comfy.model_patcher import ModelPatcher

from ..adaptor import VideoAdaptor
from ..checkpoint import with_tensors
from ..initialisation import Init, new_adaptor
from .base_model import config_for, unet_weights
from .versions import patcher_class


def hosted(adaptor: VideoAdaptor) -> ModelPatcher:
    """A patcher around the same tensors; its layers cast themselves to the dtype and device of what they are given.

    Tensors on another device are copied to where the host keeps what it has not loaded, and counts this adaptor.
    """
    layers, offload_device = comfy.ops.manual_cast, comfy.model_management.unet_offload_device()
    tensors = {name: tensor.to(offload_device) for name, tensor in adaptor.state_dict().items()}
    return patcher_class()(
        with_tensors(adaptor.config, tensors, adaptor.metadata, layers),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=offload_device,
    )


def adaptor_for(model: ModelPatcher, init: Init = "spatial", seed: int = 0, **settings: object) -> VideoAdaptor:
    """An identity adaptor that fits the model; ``settings`` are further fields of AdaptorConfig.

    Raises ValueError for another kind of model.
    """
    return new_adaptor(config_for(model, **settings), init, seed, unet_weights(model))


def fresh_adaptor(
    model: ModelPatcher, frames: int = 16, rank: int = 0, init: Init = "spatial", seed: int = 0
) -> ModelPatcher:
    """An identity adaptor that fits the model, as ``adaptor_for`` makes it, ready for Apply."""
    return hosted(adaptor_for(model, init, seed, frames=frames, rank=rank))
