"""What the pack needs to know of the image model, and the refusal of models it cannot work with."""

from collections.abc import Callable, Iterable, Iterator

import comfy.lora
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..adaptor import AdaptorConfig
from ..sites import find_sites

BASE = "SD1.5"


def unet_of(model: ModelPatcher) -> nn.Module:
    """The UNet inside a model.  Raises ValueError unless the model is of the Stable Diffusion 1.5 family."""
    config = getattr(model.model, "model_config", None)
    if not isinstance(config, comfy.supported_models.SD15):
        raise ValueError(
            f"MagicVideo works with Stable Diffusion 1.5 models, but this model is {type(config).__name__}. "
            "Load an SD1.5 checkpoint (a fine-tune of it, or one for inpainting, will do)."
        )
    return model.model.diffusion_model


def config_for(model: ModelPatcher, **settings: object) -> AdaptorConfig:
    """Settings of an adaptor that fits this model's UNet; ``settings`` are further fields of AdaptorConfig."""
    unet = unet_of(model)
    inner, outer = unet.time_embed[0], unet.time_embed[2]
    ends = {"time_channels": inner.in_features, "embedding_channels": outer.out_features}
    return AdaptorConfig(find_sites(unet), base=BASE, **ends, **settings)


def check_fit(model: ModelPatcher, config: AdaptorConfig) -> None:
    """Raises ValueError when the adaptor was made for another UNet."""
    own = config_for(model)
    if config.base != BASE:
        raise ValueError(f"This adaptor was made for {config.base}, but the model is {BASE}. Choose another adaptor.")
    if (own.sites, own.time_channels, own.embedding_channels) != (
        config.sites,
        config.time_channels,
        config.embedding_channels,
    ):
        raise ValueError(
            f"This adaptor was made for a UNet with {describe(config)}, but this model's UNet has {describe(own)}. "
            "Use the checkpoint it was trained on, or another adaptor."
        )


def check_trainable(model: ModelPatcher) -> None:
    """Raises ValueError when the UNet takes more than noisy latents, as those for inpainting or editing do."""
    own, latents = unet_of(model).in_channels, model.model.latent_format.latent_channels
    if own != latents:
        raise ValueError(
            f"An adaptor is trained on a model whose UNet takes {latents} channels, but this one takes {own}, as "
            "models for inpainting or editing do. Train on the plain model it was made from; the adaptor fits both."
        )


def check_latents(model: ModelPatcher, channels: int, node: str) -> None:
    """Raises ValueError when latents of so many channels are those of another kind of model's autoencoder."""
    own = model.model.latent_format.latent_channels
    if channels != own:
        raise ValueError(
            f"{node} was given latents or an autoencoder of {channels} channels, but the model works with {own}. Use "
            "the VAE of the checkpoint, or another one for Stable Diffusion 1.5."
        )


def check_text(model: ModelPatcher, channels: int) -> None:
    """Raises ValueError when captions were encoded for another kind of model."""
    own = model.model.model_config.unet_config["context_dim"]
    if channels != own:
        raise ValueError(
            f"The captions are encoded with {channels} channels, but the model reads {own}. Encode them with the text "
            "encoder of a Stable Diffusion 1.5 checkpoint."
        )


def describe(config: AdaptorConfig) -> str:
    """A UNet's layout in words, for an error message."""
    widths = sorted({site.channels for site in config.sites})
    return (
        f"{len(config.convolutions)} convolutions and {len(config.transformers)} transformers "
        f"({', '.join(map(str, widths))} channels)"
    )


def unet_weight(model: ModelPatcher, name: str) -> Tensor:
    """A weight of the UNet as this clone of the model has it, LoRAs included, in fp32, whatever is loaded now."""
    return patched_weight(model, f"diffusion_model.{name}")


def unet_weights(model: ModelPatcher, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """As ``unet_weight``, of many names; the host, which looks through the whole model each time, is asked once."""
    found = model.get_key_patches("diffusion_model.")
    for name in names:
        key = f"diffusion_model.{name}"
        yield name, weight_with(key, *found[key])


def patched_weight(model: ModelPatcher, key: str) -> Tensor:
    """A weight of any model of the host by its key, as this clone has it, LoRAs included, in fp32."""
    return weight_with(key, *model.get_key_patches(key)[key])


def weight_with(key: str, own: tuple[Tensor, Callable[..., Tensor]], *patches: tuple) -> Tensor:
    """A weight with the host's patches of it; ``own`` is the weight and what makes a tensor of it."""
    weight, convert = own
    weight = convert(weight, inplace=False).to(device="cpu", dtype=torch.float32, copy=True)
    return comfy.lora.calculate_weight(list(patches), weight, key) if patches else weight
