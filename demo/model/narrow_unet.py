"""The narrow image network as ComfyUI's own classes: a model like any SD1.5 model, with half the channels.

Its layers have the names of the wide network's, so what acts at a layer by name acts here as well: a video adaptor can
be trained on the narrow network at a quarter of the cost, and then padded (padding.py).
"""

import comfy.model_base
import comfy.model_management
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from magicvideo.adaptor_unet.host.versions import patcher_class
from magicvideo.demo.model import narrow_layers
from magicvideo.demo.model.compact_checkpoint import unet_settings
from magicvideo.demo.model.sizes import CHANNELS

NARROW_CHANNELS = CHANNELS // narrow_layers.WIDENING
NARROW_HEADS = NARROW_CHANNELS // narrow_layers.HEAD_CHANNELS


def narrow_model(weights: dict[str, Tensor] | None = None) -> ModelPatcher:
    """The narrow network in ComfyUI's hands, for any node that takes a MODEL; without weights, freshly initialised.

    Raises RuntimeError for weights of another network.
    """
    settings = unet_settings(NARROW_CHANNELS)
    config = comfy.supported_models.SD15(settings)
    config.unet_config = settings
    config.manual_cast_dtype = None
    config.custom_operations = narrow_layers
    return patcher_of(comfy.model_base.BaseModel(config, device="cpu"), weights)


def patcher_of(model: comfy.model_base.BaseModel, weights: dict[str, Tensor] | None = None) -> ModelPatcher:
    """A model of ComfyUI's with these weights of its UNet, or freshly initialised, as nodes take it."""
    if weights is not None:
        model.diffusion_model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    else:
        start_quietly(model.diffusion_model)
    device = comfy.model_management.get_torch_device()
    return patcher_class()(model, load_device=device, offload_device=comfy.model_management.unet_offload_device())


@torch.no_grad()
def start_quietly(unet: torch.nn.Module) -> None:
    """Each residual part starts at zero, and so does the whole network, as diffusion networks are started."""
    for name, module in unet.named_modules():
        if name.endswith(("out_layers.3", "proj_out")) or name == "out.2":
            for parameter in module.parameters():
                parameter.zero_()
