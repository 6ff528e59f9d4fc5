"""What the pack needs to know of the image model, and the refusal of models it cannot work with."""

from collections import Counter
from collections.abc import Callable
from typing import get_args

import comfy.lora
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from torch import Tensor, nn

from ..adaptor import AdaptorConfig
from ..sites import AttentionAt, Site, find_sites

SUPPORTED = "Stable Diffusion 1.x, 2.x and XL"
# The host's classes of each family; derived ones, such as those with fewer blocks, come before what they derive from.
FAMILIES: dict[str, tuple[type, ...]] = {
    "SD1.5": (comfy.supported_models.SD15, comfy.supported_models.SD15_instructpix2pix),
    "SD2": (comfy.supported_models.SD20,),
    "SSD-1B": (comfy.supported_models.SSD1B,),
    "Segmind Vega": (comfy.supported_models.Segmind_Vega,),
    "KOALA": (comfy.supported_models.KOALA_700M, comfy.supported_models.KOALA_1B),
    "SDXL": (comfy.supported_models.SDXL,),
}
# Channels of an attention head in the families that count them instead of heads.
HEAD_CHANNELS = 64


def family_of(model: ModelPatcher) -> str:
    """The family of a model, as adaptor files name it.  Raises ValueError unless it has a UNet of Stable Diffusion."""
    config = getattr(model.model, "model_config", None)
    for family, kinds in FAMILIES.items():
        if isinstance(config, kinds):
            return family
    raise ValueError(
        f"MagicVideo works with {SUPPORTED} models, but this model is {type(config).__name__}. "
        "Load a checkpoint of one of these families (a fine-tune of it, or one for inpainting, will do)."
    )


def unet_of(model: ModelPatcher) -> nn.Module:
    """The UNet inside a model.  Raises ValueError unless the model is of the Stable Diffusion family."""
    family_of(model)
    return model.model.diffusion_model


def config_for(model: ModelPatcher, attention_at: AttentionAt = "every_block", **settings: object) -> AdaptorConfig:
    """Settings of an adaptor that fits this model's UNet; ``settings`` are further fields of AdaptorConfig."""
    unet, family = unet_of(model), family_of(model)
    inner, outer = unet.time_embed[0], unet.time_embed[2]
    own = {"time_channels": inner.in_features, "embedding_channels": outer.out_features, "base": family}
    if family != "SD1.5" and "heads" not in settings:
        own["head_channels"] = HEAD_CHANNELS
    return AdaptorConfig(find_sites(unet, attention_at), **own | settings)


def check_fit(model: ModelPatcher, config: AdaptorConfig) -> None:
    """Raises ValueError when the adaptor was made for another UNet."""
    family, unet = family_of(model), unet_of(model)
    if config.base != family:
        raise ValueError(
            f"This adaptor was made for {config.base}, but the model is {family}. Choose another adaptor, or a model "
            f"that is {config.base}."
        )
    layouts = [find_sites(unet, attention_at) for attention_at in get_args(AttentionAt)]
    ends = (unet.time_embed[0].in_features, unet.time_embed[2].out_features)
    if config.sites not in layouts or (config.time_channels, config.embedding_channels) != ends:
        raise ValueError(
            f"This adaptor was made for a UNet with {describe(config.sites)}, but this model's UNet has "
            f"{describe(layouts[0])}. Use the checkpoint it was trained on, or another adaptor."
        )


def beside_latents(model: ModelPatcher, x: Tensor) -> Tensor | None:
    """n c h w -> n k h w: what models for inpainting and editing take beside latents, None for those that take no more.

    It is what the host makes where a graph gives no picture: all is to be painted anew, or an empty picture edited.
    """
    return model.model.concat_cond(noise=x, latent_image=torch.zeros_like(x), device=x.device)


def check_trainable(model: ModelPatcher) -> None:
    """Raises ValueError when the UNet takes something that the trainer has not."""
    own, latents = unet_of(model).in_channels, model.model.latent_format.latent_channels
    beside = beside_latents(model, torch.zeros(1, latents, 8, 8))
    given = latents + (0 if beside is None else beside.shape[1])
    if own != given:
        raise ValueError(
            f"An adaptor is trained on a model whose UNet takes {given} channels, but this one takes {own}. Train on "
            "the plain model it was made from; the adaptor fits both."
        )


def check_latents(model: ModelPatcher, channels: int, node: str) -> None:
    """Raises ValueError when latents of so many channels are those of another kind of model's autoencoder."""
    own = model.model.latent_format.latent_channels
    if channels != own:
        raise ValueError(
            f"{node} was given latents or an autoencoder of {channels} channels, but the model works with {own}. Use "
            "the VAE of the checkpoint, or another one for its family."
        )


def check_text(model: ModelPatcher, channels: int) -> None:
    """Raises ValueError when captions were encoded for another kind of model."""
    own = model.model.model_config.unet_config["context_dim"]
    if channels != own:
        raise ValueError(
            f"The captions are encoded with {channels} channels, but the model reads {own}. Encode them with the text "
            "encoder of its own family."
        )


def describe(sites: tuple[Site, ...]) -> str:
    """A UNet's layout in words, for an error message."""
    widths = sorted({site.channels for site in sites})
    kinds = Counter(site.kind for site in sites)
    return (
        f"{kinds['convolution']} convolutions and {kinds['transformer']} transformers "
        f"({', '.join(map(str, widths))} channels)"
    )


def unet_weights(model: ModelPatcher) -> Callable[[str], Tensor]:
    """Weights of the UNet by name, as ``patched_weights`` gives them."""
    return patched_weights(model, "diffusion_model.")


def patched_weights(model: ModelPatcher, prefix: str = "") -> Callable[[str], Tensor]:
    """Weights of any model of the host by their keys behind ``prefix``, whatever is loaded now.

    They are as this clone has them, LoRAs included, in fp32.  Each is asked for by itself: the host's way to ask for
    all at once fails for weights in 8 bits, whose scales are in the state dict and in no module.
    """

    def weight(name: str) -> Tensor:
        key = prefix + name
        value, _, convert = get_key_weight(model.model, key)
        if key in model.backup:
            value = model.backup[key].weight
        if key in model.hook_backup:
            value = model.hook_backup[key][0]
        value = value if convert is None else convert(value, inplace=False)
        value = value.to(device="cpu", dtype=torch.float32, copy=True)
        patches = model.patches.get(key)
        return comfy.lora.calculate_weight(patches, value, key) if patches else value

    return weight
