"""The image model that is trained with, as files: a checkpoint with its encoders, names for weights, and a tuned base.

Axes: f frames, h w of a picture or latent, c latent channels, n tokens, d text channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import EDM, EPS, V_PREDICTION, ModelSamplingContinuousEDM, ModelSamplingDiscrete
from comfy.sd import CLIP, VAE
from comfy.supported_models import SDXL
from safetensors import SafetensorError
from torch import Tensor, nn

from ..whole_file import content_name, read_hash, save_tensors
from .base_model import check_latents, check_trainable, patched_weights, unet_of, unet_weights
from .call_part import GUIDANCE
from .caption_tensor import POOLED, CaptionTensor
from .content_of import content_of, plain_settings
from .graph_watch import raise_if_stopped
from .training_unet import PATCHES, training_device
from .versions import text_encoder_weights

# What the host's readers raise for a file that is no checkpoint.
UNREADABLE = (RuntimeError, ValueError, KeyError, OSError, SafetensorError, UnpicklingError)
# Of settings that a fingerprint tells.  One type more would give the same models other names, and runs would not go on.
TOLD_TYPES = (bool, int, float, str, type(None))
# What nodes set for a sampling, such as RescaleCFG.
AROUND_THE_MODEL = (*GUIDANCE, "model_function_wrapper")


@dataclass(frozen=True)
class HostEncoders:
    """The ``Encoders`` of the latent cache, by the host's own autoencoder and text encoder.

    ``fingerprint`` names their weights.  Both raise the host's own error when its stop button was pressed.
    """

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    fingerprint: str

    def __post_init__(self) -> None:
        """Raises ValueError for a model that cannot be trained with, and for an autoencoder of another kind."""
        check_trainable(self.model)
        check_latents(self.model, self.vae.latent_channels, "Train MagicVideo Adaptor")

    def pictures(self, frames: Tensor) -> Tensor:
        """Latents of pictures, f h w 3 in 0 to 1 -> f c h w as the UNet works on them, fp32 on the CPU."""
        raise_if_stopped()
        with torch.no_grad():
            return self.model.model.process_latent_in(self.vae.encode(frames)).float().cpu().clone()

    def text(self, caption: str) -> Tensor:
        """A caption as a run keeps it, n d (``caption_tensor``), fp32 on the CPU."""
        raise_if_stopped()
        with torch.no_grad():
            return self.kept(self.clip.encode_from_tokens_scheduled(self.clip.tokenize(caption)))

    def beside_words(self, caption: str) -> str:
        """A name for the values of the embeddings (textual inversions) that a caption names; none for words alone."""
        found = [("embedding", x) for x in tensors_in(self.clip.tokenize(caption))]
        return content_name(found) if found else ""

    def kept(self, conditioning: list) -> Tensor:
        """The first entry of a conditioning -> n d, as a run keeps a caption (``caption_tensor``)."""
        tokens, more = conditioning[0][0], conditioning[0][1]
        vector = more.get(POOLED)
        vector = None if vector is None else vector[0].float().cpu()
        return CaptionTensor.of(self.model).joined(tokens[0].float().cpu(), vector).clone()


def decode(model: ModelPatcher, vae: VAE, latents: Tensor) -> Tensor:
    """Pictures of latents as the UNet works on them, f c h w -> f h w 3 in 0 to 1, fp32 on the CPU.

    In the autoencoder's own precision, also within a training's, as *VAE Decode* gives them.
    """
    with torch.no_grad(), torch.autocast(training_device().type, enabled=False):
        return vae.decode(model.model.process_latent_out(latents)).float().cpu().clamp(0, 1)


class BaseCheckpoint:
    """A checkpoint of the Stable Diffusion family.  Raises ValueError when the host cannot load it."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; expected a Stable Diffusion checkpoint, which is one file.")
        if not path.is_file():
            raise ValueError(f"{path} is not there; expected a Stable Diffusion checkpoint.")
        self.path = path

    @cached_property
    def model(self) -> ModelPatcher:
        """The image model alone.  Raises ValueError when the host cannot load the file."""
        return self._load(clip=False)[0]

    @cached_property
    def encoders(self) -> HostEncoders:
        """The checkpoint's autoencoder and text encoder.  Raises ValueError when it has none, or none that fits."""
        _, clip, vae = self._load(clip=True)
        if missing := lacking(clip, vae):
            raise ValueError(f"{self.path.name} holds no {missing}: take a checkpoint that is whole.")
        return HostEncoders(self.model, clip, vae, self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Tells checkpoints apart by all that is in the file."""
        return read_hash(self.path)

    def _load(self, clip: bool) -> tuple:
        try:
            loaded = comfy.sd.load_checkpoint_guess_config(
                str(self.path), output_vae=clip, output_clip=clip, output_model=not clip
            )
        except UNREADABLE as error:
            raise ValueError(
                f"{self.path.name} cannot be loaded ({error}); expected a Stable Diffusion checkpoint."
            ) from error
        return loaded[:3]


def lacking(clip: CLIP | None, vae: VAE | None) -> str:
    """Which of the two the host did not find in a checkpoint, in words; empty when both are there."""
    if clip is None:
        return "text encoder"
    return "autoencoder" if getattr(vae, "first_stage_model", None) is None else ""


def model_fingerprint(model: ModelPatcher) -> str:
    """A name for all of a model that training works with: its UNet, LoRAs and patches included, and how it is sampled.

    The latter is what a checkpoint or a node says of it: what the model predicts, noise levels, scale of latents.
    """
    options = model.model_options.get("transformer_options", {})
    set_on_it = (content_of(options[name], name) for name in PATCHES if options.get(name))
    sampling = model.get_model_object("model_sampling")
    told = f"{sorted_settings(sampling)} {sorted_settings(model.model.latent_format)}"
    levels = sorted(sampling.state_dict().items())
    names = sorted(name for name, _ in unet_of(model).named_parameters())
    weight = unet_weights(model)
    weights = ((name, weight(name)) for name in names)
    return content_name(chain([(told, torch.zeros(0))], levels, weights, *set_on_it))


def guidance_fingerprint(model: ModelPatcher) -> str:
    """A name for what nodes have set around a model, as a teacher's clips show it; empty where that is nothing."""
    options = model.model_options
    found = [content_of(options[name], name) for name in AROUND_THE_MODEL if options.get(name)]
    return content_name(chain(*found)) if found else ""


def sorted_settings(made: object) -> str:
    """The classes of an object of the host's, and those of its settings that are plain values."""
    settings = plain_settings(made, TOLD_TYPES)
    return f"{[base.__qualname__ for base in type(made).__mro__]} {[*settings.items()]}"


def encoders_fingerprint(model: ModelPatcher, clip: CLIP, vae: VAE) -> str:
    """A name for text encoder and autoencoder together: their weights, LoRAs included, and what nodes have set.

    Of the text encoder's weights only what the host would save: the rest is in no SD1.5 file and may be left
    uninitialised.
    """
    saved = model.model.model_config.process_clip_state_dict_for_saving(dict(text_encoder_weights(clip)))
    both = {f"clip {name}": x for name, x in saved.items()} | vae.get_sd()
    patched = patched_weights(clip.patcher)
    both |= {f"patched {key}": patched(key) for key in clip.patcher.patches}
    tensors = [(name, x) for name, x in sorted(both.items()) if isinstance(x, Tensor)]
    # Clip skip, token weights and the like.
    options = {"layer": clip.layer_idx, "tokens": sorted(clip.tokenizer_options.items())}
    options |= {"scheduled": clip.use_clip_schedule, "hooks": clip.apply_hooks_to_conds is not None}
    told = [(f"{options} {sorted_settings(model.model.latent_format)}", torch.zeros(0))]
    return content_name(chain(told, tensors, text_hooks(clip)))


def text_hooks(clip: CLIP) -> Iterator[tuple[str, Tensor]]:
    """What hooks do to the text encoder, by their content: their weights, and how strong these are when."""
    for hook in clip.patcher.forced_hooks.hooks if clip.patcher.forced_hooks else ():
        keys = [(key.strength, key.start_percent, key.guarantee_steps) for key in hook.hook_keyframe.keyframes]
        yield f"hook {type(hook).__qualname__} {keys}", torch.zeros(0)
        yield from content_of(clip.patcher.hook_patches.get(hook.hook_ref, {}), "hook")


def tensors_in(tokens: object) -> Iterator[Tensor]:
    """All tensors in what the host's tokenizer gives, in their order: embeddings stand among the numbers of words."""
    if isinstance(tokens, Tensor):
        yield tokens
    elif isinstance(tokens, (dict, list, tuple)):
        for part in tokens.values() if isinstance(tokens, dict) else tokens:
            yield from tensors_in(part)


def write_checkpoint(
    path: Path, model: ModelPatcher, unet: nn.Module, clip: CLIP, vae: VAE, metadata: dict[str, str]
) -> None:
    """A checkpoint in the layout that stock loaders take: the given UNet, in the dtype of the model's own."""
    config, dtype = model.model.model_config, unet_of(model).dtype
    tensors = config.process_unet_state_dict_for_saving({n: x.detach().to(dtype) for n, x in unet.state_dict().items()})
    tensors |= config.process_clip_state_dict_for_saving(text_encoder_weights(clip))
    tensors |= config.process_vae_state_dict_for_saving(vae.get_sd())
    save_tensors(path, tensors | sampling_keys(model), metadata)


def sampling_keys(model: ModelPatcher) -> dict[str, Tensor]:
    """The keys that tell the host's loader of SDXL how a checkpoint is sampled, as this model is, by a node too.

    Other families have no such keys: a checkpoint is sampled as the one that was loaded.  Raises ValueError for a kind
    of sampling that no key tells.
    """
    sampling, as_loaded = model.get_model_object("model_sampling"), model.model.model_sampling
    to_zero = bool(getattr(sampling, "zsnr", False))
    velocity, has_keys = isinstance(sampling, V_PREDICTION), isinstance(model.model.model_config, SDXL)
    if has_keys and velocity and isinstance(sampling, ModelSamplingContinuousEDM) and not isinstance(sampling, EDM):
        ends = {"sigma_max": sampling.sigma_max, "sigma_min": sampling.sigma_min}
        return {f"edm_vpred.{name}": torch.tensor(float(sigma)) for name, sigma in ends.items()}
    # Nodes make classes of their own of these two, and of others, such as LCM's.
    if {*type(sampling).__bases__} <= {ModelSamplingDiscrete, EPS, V_PREDICTION}:
        if has_keys and (velocity or not to_zero):
            names = ["v_pred"] * velocity + ["ztsnr"] * to_zero
            return {name: torch.tensor([]) for name in names}
        if not has_keys and not to_zero and velocity == isinstance(as_loaded, V_PREDICTION):
            return {}
    kinds = ", ".join(base.__name__ for base in type(sampling).__bases__)
    raise ValueError(
        f"base_tuning full writes a checkpoint, and none of this family can say that it is sampled as this model is "
        f"({kinds}{', to a terminal SNR of zero' * to_zero}). "
        "Take base_tuning lora or frozen."
    )
