"""The real host, in this process, on the CPU, with a small UNet of the SD1.5 kind."""

from collections.abc import Callable

import comfy.sample
import comfy.samplers
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from magicvideo.adaptor_unet.host.versions import patcher_class

SMALL = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": 1,
    "channel_mult": (1, 1),
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "context_dim": 32,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}


# SD1.5's own levels and blocks, of whatever width.
SD15_BLOCKS = {
    "num_res_blocks": 2,
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
FULL = SD15_BLOCKS | {"model_channels": 320, "context_dim": 768}
FULL_SDXL = {
    "model_channels": 320,
    "num_res_blocks": 2,
    "channel_mult": (1, 2, 4),
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "context_dim": 2048,
    "use_linear_in_transformer": True,
    "num_heads": -1,
    "num_head_channels": 64,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}
# What is different in the other families: transformers a block, heads by their channels, a vector beside the timestep.
SMALL_SD2 = {"use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 16}
SMALL_SDXL = SMALL_SD2 | {
    "transformer_depth": [0, 2],
    "transformer_depth_output": [2, 2, 0, 0],
    "transformer_depth_middle": 2,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}
FAMILIES = {
    "SD1.5": (comfy.supported_models.SD15, {}),
    "SD1.5 for inpainting": (comfy.supported_models.SD15, {"in_channels": 9}),
    "SD2": (comfy.supported_models.SD20, SMALL_SD2),
    "SDXL": (comfy.supported_models.SDXL, SMALL_SDXL),
    "SDXL for editing": (comfy.supported_models.SDXL_instructpix2pix, SMALL_SDXL | {"in_channels": 8}),
    "SSD-1B": (comfy.supported_models.SSD1B, SMALL_SDXL | {"transformer_depth_middle": -1}),
    "Segmind Vega": (comfy.supported_models.Segmind_Vega, SMALL_SDXL | {"transformer_depth_output": [1, 2, 0, 0]}),
}


def build_model(
    kind: type = comfy.supported_models.SD15, dtype: torch.dtype = torch.float32, **changes: object
) -> ModelPatcher:
    """A model of the host's own classes with random weights, far smaller than the real one."""
    settings = SMALL | {"dtype": dtype} | changes
    config = kind(settings)
    config.unet_config = settings
    config.manual_cast_dtype = None if dtype in (torch.float32,) else torch.float32
    torch.manual_seed(0)
    model = config.get_model({}, device="cpu")
    with_all_weights(model.diffusion_model)
    with torch.no_grad():
        for name, parameter in model.diffusion_model.named_parameters():
            values = torch.randn(parameter.shape) * (0.3 / max(1, parameter[0].numel()) ** 0.5)
            values += 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(values.to(dtype))
            parameter.requires_grad_(False)
    device = torch.device("cpu")
    return patcher_class()(model, device, device)


def other_family(name: str) -> ModelPatcher:
    """A model whose configuration is that of a family that the pack does not know; its UNet does not matter."""
    model = build_model()
    model.model.model_config.__class__ = getattr(comfy.supported_models, name)
    return model


def with_all_weights(network: nn.Module) -> nn.Module:
    """The network with the weights of the host's lazy layers, which have none before a state dict is loaded."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and layer.weight is None:
            dtype = layer.weight_comfy_model_dtype
            layer.weight = nn.Parameter(torch.zeros(layer.out_features, layer.in_features, dtype=dtype))
            if layer.comfy_need_lazy_init_bias:
                layer.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=dtype))
    return network


def trained(adaptor: ModelPatcher, seed: int = 1, size: float = 0.3) -> ModelPatcher:
    """The adaptor as training might leave it: every value moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adaptor.model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=generator).to(parameter) * size / parameter.shape[-1] ** 0.5
            )
    return adaptor


# Of a text whose length does not matter; the 77 of a prompt would make a call of so small a UNet dearer by a quarter.
TOKENS, PROMPT_TOKENS = 7, 77
# Latent height and width where there is no area or tile to find: four pixels at the inner level.
SIZE = 4


def conditioning(
    seed: int = 0, tokens: int = TOKENS, batch: int = 1, channels: int | None = None, **extra: object
) -> list:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(batch, tokens, channels or SMALL["context_dim"], generator=generator)
    return [[text, {"pooled_output": torch.randn(batch, 1280, generator=generator), **extra}]]


Sampler = Callable[..., torch.Tensor]
# Of a clip where its length does not matter.
FRAMES = 6


def noise_for(frames: int = FRAMES, seed: int = 0) -> torch.Tensor:
    """f 4 h w"""
    return torch.randn(frames, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def sample(
    model: ModelPatcher,
    frames: int = FRAMES,
    cfg: float = 7.0,
    seed: int = 0,
    steps: int = 2,
    size: int = SIZE,
    sampler: str = "euler",
    tokens: int = TOKENS,
    **options: object,
) -> torch.Tensor:
    """Latents of the stock KSampler node's own way, with random text unless ``positive`` or ``negative`` are given.

    ``noise`` or ``latent`` decide on ``frames`` and ``size``, where they are given.
    """
    positive = options.pop("positive", None) or conditioning(1, tokens)
    negative = options.pop("negative", None) or conditioning(2, tokens)
    latent, noise = options.pop("latent", None), options.pop("noise", None)
    if latent is None:
        latent = torch.zeros(frames, 4, size, size) if noise is None else torch.zeros_like(noise)
    noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            "normal",
            positive,
            negative,
            latent,
            disable_pbar=True,
            seed=seed,
            **options,
        )


def denoised_by_host(model: ModelPatcher, x: torch.Tensor, text: list, sigma: float) -> torch.Tensor:
    """The host's own denoised latents at one noise level, by an Euler step down to zero."""
    with torch.inference_mode():
        out = comfy.sample.sample_custom(
            model,
            x / sigma,
            1.0,
            comfy.samplers.ksampler("euler"),
            torch.tensor([sigma, 0.0]),
            text,
            text,
            torch.zeros_like(x),
            disable_pbar=True,
            seed=0,
        )
        return model.model.process_latent_in(out)
