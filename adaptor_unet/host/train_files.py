"""Files of a base that is tuned along."""

from pathlib import Path

import torch
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from safetensors.torch import save_file
from torch import Tensor, nn

from ..whole_file import written_whole
from .base_model import unet_of
from .versions import text_encoder_weights


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Tensors of any device and layout, in place of what was there."""
    with written_whole(path) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)


def write_checkpoint(
    path: Path, model: ModelPatcher, unet: nn.Module, clip: CLIP, vae: VAE, metadata: dict[str, str]
) -> None:
    """A checkpoint in the layout that stock loaders take: the given UNet, in the dtype of the model's own."""
    config, dtype = model.model.model_config, unet_of(model).dtype
    tensors = config.process_unet_state_dict_for_saving({n: x.detach().to(dtype) for n, x in unet.state_dict().items()})
    tensors |= config.process_clip_state_dict_for_saving(text_encoder_weights(clip))
    tensors |= config.process_vae_state_dict_for_saving(vae.get_sd())
    if model.model.model_type == ModelType.V_PREDICTION:
        tensors["v_pred"] = torch.tensor([])
    write(path, tensors, metadata)
