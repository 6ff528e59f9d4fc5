"""Names for weights: equal for equal weights, so that what was made with them can be found again."""

import hashlib
from collections.abc import Iterable

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from .base_model import unet_of, unet_weight
from .versions import text_encoder_weights

# Values of a tensor that are looked at, evenly from all of it.
VALUES = 256


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Of names, shapes and a sample of values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // VALUES)].to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def of_model(model: ModelPatcher) -> str:
    """The UNet's, LoRAs included."""
    names = sorted(name for name, _ in unet_of(model).named_parameters())
    return fingerprint((name, unet_weight(model, name)) for name in names)


def of_encoders(model: ModelPatcher, clip: CLIP, vae: VAE) -> str:
    """The text encoder's and the autoencoder's, LoRAs on the former by their patches.

    Of the text encoder only what the host would save: the rest is in no SD1.5 file and may be left uninitialised.
    """
    saved = model.model.model_config.process_clip_state_dict_for_saving(dict(text_encoder_weights(clip)))
    patches = str(getattr(clip.patcher, "patches_uuid", "")) if clip.patcher.patches else ""
    both = {f"clip {name}": x for name, x in saved.items()} | vae.get_sd()
    tensors = ((name, x) for name, x in sorted(both.items()) if isinstance(x, Tensor))
    return fingerprint([*tensors, (f"patches {patches}", torch.zeros(0))])
