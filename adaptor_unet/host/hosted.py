"""Adaptors and motion modules as the host holds them: a ModelPatcher, which it loads, offloads and frees like any."""

import copy
from collections.abc import Callable

import comfy.model_management
import comfy.ops
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..adaptor import VideoAdaptor
from ..checkpoint import with_tensors
from ..initialisation import Init, new_adaptor
from ..motion_module import MotionModule
from ..motion_module import with_tensors as motion_module_of
from ..tensor_file import FLOATS
from .base_model import config_for, unet_weights
from .binding import BINDING_KEY
from .versions import is_copy, patcher_class


def hosted(adaptor: VideoAdaptor) -> ModelPatcher:
    """A patcher around the same tensors; its layers cast themselves to the dtype and device of what they are given.

    Tensors on another device are copied to where the host keeps what it has not loaded, and counts this adaptor.
    """
    layers, offload_device = comfy.ops.manual_cast, comfy.model_management.unet_offload_device()
    tensors = {name: tensor.to(offload_device) for name, tensor in adaptor.state_dict().items()}
    return patcher_for(with_tensors(adaptor.config, tensors, adaptor.metadata, layers), hosted)


def patcher_for(network: nn.Module, made_by: Callable[[nn.Module], ModelPatcher]) -> ModelPatcher:
    """A patcher around a network that is not loaded yet.

    Newer hosts split guidance over several cards: for each of the others ``made_by`` makes a patcher around a copy.
    """
    patcher = patcher_class()(
        network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    patcher.cached_patcher_init = (copy_for_another_card, (made_by, network))
    return patcher


def copy_for_another_card(made_by: Callable[[nn.Module], ModelPatcher], network: nn.Module) -> ModelPatcher:
    """A patcher around copies of a network's tensors."""
    return made_by(copy.deepcopy(network))


def load_with(model: ModelPatcher, patcher: ModelPatcher) -> None:
    """The host loads, offloads and frees the patcher's network with the model, once however often it is added."""
    others = [one for one in model.get_additional_models_with_key(BINDING_KEY) if one.model is not patcher.model]
    model.set_additional_models(BINDING_KEY, [*others, patcher])


def on_card_of(model: ModelPatcher, patcher: ModelPatcher | None) -> ModelPatcher | None:
    """The copy of a patcher that the host has made for the card of this copy of the model; without one, the patcher."""
    copies = (one for one in model.get_additional_models_with_key(BINDING_KEY) if is_copy(one, patcher))
    return next(copies, patcher)


def hosted_motion_module(module: MotionModule) -> ModelPatcher:
    """A patcher around a motion module in the dtype that the host would give an image model of its size."""
    layers, offload_device = comfy.ops.manual_cast, comfy.model_management.unet_offload_device()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    dtype = comfy.model_management.unet_dtype(model_params=parameters)
    dtype = dtype if dtype in FLOATS else None  # an image model may be kept in fewer bits; this is a third of its size
    tensors = {name: tensor.to(offload_device, dtype) for name, tensor in module.state_dict().items()}
    return patcher_for(motion_module_of(module.config, tensors, layers), hosted_motion_module)


def adaptor_for(model: ModelPatcher, init: Init = "spatial", seed: int = 0, **settings: object) -> VideoAdaptor:
    """An identity adaptor that fits the model; ``settings`` are further fields of AdaptorConfig.

    Raises ValueError for another kind of model.
    """
    return new_adaptor(config_for(model, **settings), init, seed, unet_weights(model))


def fresh_adaptor(model: ModelPatcher, **settings: object) -> ModelPatcher:
    """An identity adaptor that fits the model, as ``adaptor_for`` makes it, ready for Apply."""
    return hosted(adaptor_for(model, **settings))
