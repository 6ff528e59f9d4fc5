"""A UNet of the trainer's own, so that the model in the graph stays as it is.

Axes: n rows of the UNet, b clips, f frames of a clip, c h w of a latent; n tokens, d channels of a text.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.ops
import comfy.samplers
import torch
from comfy.ldm.modules.attention import FeedForward, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete
from einops import repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..frame_layout import FrameLayout
from ..motion_module import MotionModule
from ..temporal_network import Network
from .base_model import check_trainable, concatenated_input, unet_of, unet_weights
from .call_part import TransformerOptions
from .caption_tensor import LATENT_PIXELS, CaptionTensor
from .effect import Effect
from .frame_cache import CallCache, no_cache
from .motion_effect import Motion, Order
from .motion_module_effect import MotionModuleEffect, norms_of, sites_of

# What fp8 weights are: those of matrices and kernels, which nearly all are.  Biases and norms stay as they are.
FP8 = torch.float8_e4m3fn
# What other nodes have set around a model's attention, by the names of the host's options: what a run trains with.
PATCHES = ("patches", "patches_replace")


class TrainingUnet:
    """The denoiser of a training run (``training.objective.Denoiser``) around a copy of a model's UNet.

    The copy has the weights of the model as it came, LoRAs included, in ``dtype``, and the patches that other nodes
    have set around its attention.  Raises ValueError for a UNet that takes what a run has not.  Must be made and used
    outside inference mode.  With ``checkpointing``, activations inside residual and transformer blocks are computed
    again for the gradients instead of being kept.  With ``fp8``, weights are kept in 8 bits and made larger layer by
    layer; with ``offload``, activations that are kept for the gradients wait in main memory; with ``frames_at_once``,
    so many frames go through the widest layers together.
    """

    def __init__(
        self,
        model: ModelPatcher,
        device: torch.device,
        dtype: torch.dtype,
        checkpointing: bool,
        fp8: bool = False,
        offload: bool = False,
        frames_at_once: int = 0,
    ) -> None:
        check_trainable(model)
        self.dtype, self.offload = dtype, offload
        self.model_sampling = copy.deepcopy(model.get_model_object("model_sampling")).to(device)
        self.sigmas = self.model_sampling.sigmas.float()
        self.unet = unet_copy(model, device, dtype, fp8)
        if frames_at_once:
            for module in self.unet.modules():
                if isinstance(module, FeedForward):
                    module.forward = in_pieces(module.forward, frames_at_once)
        self.captions, self.encode_adm = CaptionTensor.of(model), model.model.encode_adm
        self._concatenated_input = partial(concatenated_input, model)
        if checkpointing:
            for module in self.unet.modules():
                if isinstance(module, (ResBlock, SpatialTransformer)):
                    module.forward = checkpointed(module.forward)
        given = model.model_options.get("transformer_options", {})
        self.options = {name: given[name] for name in PATCHES if name in given}
        self._hooks = ExitStack()
        # The same from call to call, because the cache knows it by itself.
        self._acting: tuple[Network, tuple[float, ...], Effect] | None = None

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """The latents at noise levels sigma, n, with that noise, n c h w -> n c h w."""
        return self.model_sampling.noise_scaling(sigma, noise, latents)

    def denoised(self, out: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean latents by the UNet's output for ``x`` at noise levels sigma, n: n c h w twice -> n c h w."""
        return self.model_sampling.calculate_denoised(sigma, out, x)

    def process_latent_in(self, latents: Tensor) -> Tensor:
        """n c h w -> n c h w: a run's latents are the model's own already."""
        return latents

    process_latent_out = process_latent_in

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        fps: tuple[float, ...],
        network: Network | None,
        layout: FrameLayout | None = None,
        cache: CallCache = no_cache,
    ) -> Tensor:
        """n c h w -> n c h w, fp32.  ``cache`` holds what the network keeps of frames before those of the call.

        The hooks stay until the next call, because the gradients compute the blocks again.  Raises the host's own error
        when its stop button was pressed, so that no phase of a training is deaf to it.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._hooks.close()
        frames = len(x) // len(fps)
        tokens, vector = self.captions.apart(text)
        options: TransformerOptions = {**self.options, "cond_or_uncond": [0] * len(fps), "sigmas": sigma}
        if network is not None:
            effect = self._effect(network, fps)
            for part in effect.parts([(effect, layout or FrameLayout.whole(len(fps), frames))], cache):
                self._hooks.enter_context(part.hooked(self.unet))
                options = part.patched(options)
        given, more = self.model_sampling.calculate_input(sigma, x), self._concatenated_input(x)
        with self._kept():
            out = self.unet(
                (given if more is None else torch.cat([given, more], dim=1)).to(self.dtype),
                self.model_sampling.timestep(sigma).float(),
                context=repeat(tokens, "b n d -> (b f) n d", f=frames).to(self.dtype),
                y=self._beside_timestep(vector, x, frames),
                transformer_options=options,
            )
        return out.float()

    def _kept(self) -> AbstractContextManager[None]:
        """Where what the gradients need is kept: on the device, or in main memory."""
        if not (self.offload and torch.is_grad_enabled()):
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=self.sigmas.device.type == "cuda")

    def _effect(self, network: Network, fps: tuple[float, ...]) -> Effect:
        if self._acting is None or self._acting[:2] != (network, fps):
            self._acting = (network, fps, effect_of(network, self.unet, fps))
        return self._acting[2]

    def sampled_as(self, model_sampling: ModelSamplingDiscrete) -> "TrainingUnet":
        """A second denoiser around the same UNet, at other noise levels; both share their hooks on it.

        So the next call of either takes away the hooks of the last.
        """
        other = copy.copy(self)
        other.model_sampling = copy.deepcopy(model_sampling).to(self.sigmas.device)
        other.sigmas = other.model_sampling.sigmas.float()
        return other

    def _beside_timestep(self, vector: Tensor | None, x: Tensor, frames: int) -> Tensor | None:
        """``n a``: what the model is told beside the timestep, of the captions' vectors and the picture's size, as
        where a graph says nothing of the size; None if it is told nothing."""
        height, width = (LATENT_PIXELS * side for side in x.shape[-2:])
        told = self.encode_adm(pooled_output=vector, height=height, width=width, device=x.device)
        if told is None:
            return None
        return repeat(told.expand(len(x) // frames, -1), "b a -> (b f) a", f=frames).to(x.device, self.dtype)

    def close(self) -> None:
        """Takes away the hooks of the last call."""
        self._hooks.close()


def effect_of(network: Network, unet: nn.Module, fps: tuple[float, ...], order: Order = "auto") -> Effect:
    """What a network does in a UNet, one clip for each rate.  Raises ValueError for a module of another UNet."""
    if isinstance(network, MotionModule):
        return MotionModuleEffect(module=network, sites=sites_of(unet, network), norms=norms_of(unet))
    return Motion(adaptor=network, fps=fps, order=order)


def unet_copy(model: ModelPatcher, device: torch.device, dtype: torch.dtype, fp8: bool = False) -> nn.Module:
    """A UNet of the same kind and with the same weights, sharing nothing with the model.

    The weights come as a state dict, since some layers of the host have none before.  In ``fp8`` they are rounded as
    where the host loads a model so, and its layers make each of them what it computes with.
    """
    unet = unet_of(model)
    settings = model.model.model_config.unet_config | {"dtype": dtype}
    own = model.model.model_config.custom_operations or comfy.ops.disable_weight_init
    layers = comfy.ops.manual_cast if fp8 else own
    made = type(unet)(**settings, device="meta", operations=layers)
    weight, weights = unet_weights(model), {}
    # Not the scales of weights in 8 bits, which are made whole here.
    for name in [name for name, _ in unet.named_parameters() if name.endswith((".weight", ".bias"))]:
        whole = weight(name)
        weights[name] = whole.to(device, FP8 if fp8 and whole.ndim > 1 else dtype)
    made.load_state_dict(weights, strict=True, assign=True)
    return made.requires_grad_(False).eval()


def checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same call, computed again for the gradients.

    Dicts are handed over as copies: the UNet writes its place into ``transformer_options`` as it goes on.
    """

    def call(*args: object, **kwargs: object) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        kept = [dict(x) if isinstance(x, dict) else x for x in args]
        kept_named = {name: dict(x) if isinstance(x, dict) else x for name, x in kwargs.items()}
        return checkpoint(forward, *kept, use_reentrant=False, preserve_rng_state=False, **kept_named)

    return call


def in_pieces(forward: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    """The same call, n p c -> n p c, of so many rows at a time, each of them computed again for the gradients."""
    again = checkpointed(forward)
    return lambda x: torch.cat([again(piece) for piece in x.split(rows)])


def training_device() -> torch.device:
    """Where the host computes."""
    return comfy.model_management.get_torch_device()


def make_room() -> None:
    """Takes the host's models off the device, which training needs for itself; the host loads them again on demand."""
    if training_device().type != "cpu":
        comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def check_fp8() -> None:
    """Raises ValueError where the device cannot read weights in 8 bits."""
    device = training_device()
    if not comfy.model_management.supports_cast(device, FP8):
        raise ValueError(f"base_precision fp8 does not work on {device}. Take base_precision auto.")


def training_dtype(precision: str) -> torch.dtype:
    """The dtype to compute in: for ``auto``, bfloat16 where the device has it.  fp16 overflows in training."""
    device = training_device()
    if precision == "auto":
        able = getattr(torch.cpu, "get_capabilities", dict)()
        cpu = any(has for name, has in able.items() if name.endswith("_bf16"))
        fast = cpu if device.type == "cpu" else comfy.model_management.should_use_bf16(device)
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
