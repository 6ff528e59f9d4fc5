"""The narrow image network as ComfyUI's own classes: a model like any SD1.5 model, with half the channels.

Its layers have the names of the wide network's, so what acts at a layer by name acts here as well: a video adaptor can
be trained on the narrow network at a quarter of the cost, and then padded (pad_weights.py).
"""

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

import narrow_layers
from compact_checkpoint import CHANNELS, LATENT_CHANNELS, TEXT_CHANNELS

NARROW_CHANNELS = CHANNELS // narrow_layers.WIDENING
NARROW_HEADS = NARROW_CHANNELS // narrow_layers.HEAD_CHANNELS


def unet_settings(channels: int) -> dict[str, object]:
    """What ComfyUI's detection finds in the compact checkpoint, for any number of base channels."""
    return {
        "image_size": 32,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "model_channels": channels,
        "num_res_blocks": [1, 1],
        "channel_mult": (1, 1),
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "num_heads": channels // narrow_layers.HEAD_CHANNELS,
        "num_head_channels": -1,
        "use_spatial_transformer": True,
        "context_dim": TEXT_CHANNELS,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
        "dtype": torch.float32,
    }


def narrow_model(weights: dict[str, Tensor] | None = None) -> ModelPatcher:
    """The narrow network in ComfyUI's hands, for any node that takes a MODEL; without weights, freshly initialised.

    Raises RuntimeError for weights of another network.
    """
    settings = unet_settings(NARROW_CHANNELS)
    config = comfy.supported_models.SD15(settings)
    config.unet_config = settings
    config.manual_cast_dtype = None
    config.custom_operations = narrow_layers
    model = comfy.model_base.BaseModel(config, device="cpu")
    if weights is not None:
        model.diffusion_model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    else:
        start_quietly(model.diffusion_model)
    device = comfy.model_management.get_torch_device()
    return getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)(
        model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )


@torch.no_grad()
def start_quietly(unet: torch.nn.Module) -> None:
    """Each residual part starts at zero, and so does the whole network, as diffusion networks are started."""
    for name, module in unet.named_modules():
        if name.endswith(("out_layers.3", "proj_out")) or name == "out.2":
            for parameter in module.parameters():
                parameter.zero_()
