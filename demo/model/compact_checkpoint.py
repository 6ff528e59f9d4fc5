"""A compact checkpoint that ComfyUI loads as SD1.5: which tensors it has, and how it is written.

The image network has two levels of 320 channels with one residual block each, and attention everywhere. It keeps
SD1.5's names, 320 base channels and 768 text channels, which is what ComfyUI recognises the family by. The text encoder
has CLIP-L's layout, and the autoencoder is the small convolutional one that ComfyUI knows.

A random model (tools/make_random_checkpoint.py) and the trained one (make_checkpoint.py) fill the same layout. Names
and shapes are those of ComfyUI's own classes, which are built without memory for their weights.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.narrow_layers import HEAD_CHANNELS
from magicvideo.demo.model.sizes import AUTOENCODER, CHANNELS, LATENT_CHANNELS, TEXT, TEXT_CHANNELS, UNET
from magicvideo.tools.host_in_process import start_host

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

TOKEN_VECTORS = f"{TEXT}embeddings.token_embedding.weight"
# Latents are multiplied by this on the way to the image network; the autoencoder takes it out again.
LATENT_SCALE = 0.18215


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
        "num_heads": channels // HEAD_CHANNELS,
        "num_head_channels": -1,
        "use_spatial_transformer": True,
        "context_dim": TEXT_CHANNELS,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
        "dtype": torch.float32,
    }


def checkpoint_shapes() -> Shapes:
    """Name and shape of every tensor of the checkpoint.

    Starts ComfyUI in this process if it is not there yet, as all functions of shapes here do.
    """
    return _unet_shapes() | text_shapes() | _autoencoder_shapes()


def _unet_shapes() -> Shapes:
    start_host()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    unet = UNetModel(**unet_settings(CHANNELS), device="meta", operations=disable_weight_init)
    return _shapes_of(unet, UNET)


def text_shapes() -> Shapes:
    """The tensors of the text encoder, without the projection behind it, which SD1.5 does not use."""
    settings = start_host() / "comfy" / "sd1_clip_config.json"
    from comfy.clip_model import CLIPTextModel
    from comfy.ops import disable_weight_init

    told = json.loads(settings.read_text(encoding="utf-8"))
    return _shapes_of(CLIPTextModel(told, torch.float32, "meta", disable_weight_init).text_model, TEXT)


def _autoencoder_shapes() -> Shapes:
    start_host()
    from comfy.taesd.taesd import TAESD

    with torch.device("meta"):
        return _shapes_of(TAESD(latent_channels=LATENT_CHANNELS), AUTOENCODER)


def controlnet_shapes() -> Shapes:
    """The tensors of a ControlNet for this image network, in the layout of the first SD1.5 ControlNets."""
    start_host()
    from comfy.cldm.cldm import ControlNet
    from comfy.ops import disable_weight_init

    settings = unet_settings(CHANNELS)
    for name in ("out_channels", "transformer_depth_output"):
        del settings[name]
    network = ControlNet(hint_channels=3, **settings, device="meta", operations=disable_weight_init)
    return _shapes_of(network, "control_model.")


def lora_shapes(rank: int = 4) -> Shapes:
    """The tensors of a LoRA on the queries and values of every attention of this image network."""
    shapes: Shapes = {}
    for name, shape in _unet_shapes().items():
        if name.endswith(("to_q.weight", "to_v.weight")):
            site = "lora_unet_" + name[len(UNET) : -len(".weight")].replace(".", "_")
            shapes[f"{site}.lora_up.weight"] = (shape[0], rank)
            shapes[f"{site}.lora_down.weight"] = (rank, shape[1])
    return shapes


def _shapes_of(module: nn.Module, prefix: str) -> Shapes:
    return {prefix + name: tuple(weight.shape) for name, weight in module.state_dict().items()}


def text_encoder_weights(token_vectors: Tensor) -> dict[str, Tensor]:
    """All weights of a text encoder that hands on a vector for each token and nothing else; `[tokens, channels]`.

    Attention and MLP add nothing and positions are zero, so each layer hands its input on unchanged. What the image
    network sees of a token is its vector, layer-normalised.
    """
    weights = {name: torch.zeros(shape) for name, shape in text_shapes().items()}
    for name in weights:
        if "norm" in name and name.endswith(".weight"):
            weights[name] += 1
    weights[TOKEN_VECTORS] = token_vectors
    return weights


def write_weights(path: Path, weights: dict[str, Tensor], title: str) -> None:
    """A safetensors file of the weights in fp16, whole or not at all.  Raises OutputError when it cannot be written."""
    save_tensors(path, {name: tensor.half() for name, tensor in weights.items()}, {"format": "pt", "title": title})
