"""The same UNet and motion module in an independent library, diffusers, whose norms can be made those of AnimateDiff.

Axes: b clips, c channels, f frames, h height, w width.
"""

from collections.abc import Callable

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange, repeat
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 128)
HEADS = 8


def random_weights(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter is drawn, those that training starts from zero or one too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.7 / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(drawn + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return module.eval().requires_grad_(False)


def adapter(mid: bool, positions: int = 32, seed: int = 1) -> MotionAdapter:
    made = MotionAdapter(
        block_out_channels=WIDTHS,
        motion_num_attention_heads=HEADS,
        motion_max_seq_length=positions,
        use_motion_mid_block=mid,
    )
    return random_weights(made, seed)


def image_unet(model: ModelPatcher) -> UNet2DConditionModel:
    """The UNet of the host's narrow model, with its weights."""
    settings = model.model.model_config.unet_config
    made = UNet2DConditionModel(
        block_out_channels=WIDTHS,
        layers_per_block=2,
        cross_attention_dim=settings["context_dim"],
        attention_head_dim=HEADS,
    )
    names = comfy.utils.unet_to_diffusers({**settings, "num_res_blocks": [2] * 4})
    ours, theirs = model.model.diffusion_model.state_dict(), made.state_dict()
    made.load_state_dict({name: ours[names[name]].reshape(theirs[name].shape) for name in theirs}, strict=True)
    return made.eval().requires_grad_(False)


def motion_unet(unet: UNet2DConditionModel, motion: MotionAdapter) -> UNetMotionModel:
    return UNetMotionModel.from_unet2d(unet, motion).eval().requires_grad_(False)


def reshaped(norm: nn.Module, before: Callable[[Tensor], Tensor], behind: Callable[[Tensor], Tensor]) -> None:
    """The norm sees its input in another shape and gives its output in the old one."""
    norm.register_forward_pre_hook(lambda module, inputs: before(inputs[0]))
    norm.register_forward_hook(lambda module, inputs, out: behind(out))


def motion_norms_per_frame(unet: UNetMotionModel, frames: int) -> None:
    """As AnimateDiff has them; the library's own take all frames together."""
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            reshaped(
                module.norm,
                lambda x: rearrange(x, "b c f h w -> (b f) c h w"),
                lambda x: rearrange(x, "(b f) c h w -> b c f h w", f=frames),
            )


def image_norms_over_frames(unet: UNetMotionModel, frames: int) -> int:
    """As in the training of AnimateDiff v1: two norms a residual block and the last one.  How many they are."""
    norms = [norm for name, norm in unet.named_modules() if ".resnets." in name and name.endswith(("norm1", "norm2"))]
    norms.append(unet.conv_norm_out)
    for norm in norms:
        reshaped(
            norm,
            lambda x: rearrange(x, "(b f) c h w -> b c f h w", f=frames),
            lambda x: rearrange(x, "b c f h w -> (b f) c h w"),
        )
    return len(norms)


def run(unet: UNetMotionModel, x: Tensor, timestep: float, text: Tensor) -> Tensor:
    """(b f) c h w, text b n d -> (b f) c h w"""
    frames = len(x) // len(text)
    out = unet(
        rearrange(x, "(b f) c h w -> b c f h w", f=frames),
        timestep,
        encoder_hidden_states=repeat(text, "b n d -> (b f) n d", f=frames),
        return_dict=False,
    )[0]
    return rearrange(out, "b c f h w -> (b f) c h w")
