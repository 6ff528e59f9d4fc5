"""An adaptor in the host's hands: a ModelPatcher, so that the host loads, offloads and frees it like any model."""

import comfy.model_management
import comfy.ops
from comfy.model_patcher import ModelPatcher

from ..adaptor import VideoAdaptor
from ..checkpoint import with_tensors
from .versions import patcher_class


def hosted(adaptor: VideoAdaptor) -> ModelPatcher:
    """A patcher around the same tensors; its layers cast themselves to the dtype and device of what they are given."""
    layers = comfy.ops.manual_cast
    model = with_tensors(adaptor.config, adaptor.state_dict(), adaptor.metadata, layers)
    return patcher_class()(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
