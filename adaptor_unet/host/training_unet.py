"""A UNet of the trainer's own, so that the model in the graph stays as it is, and sample clips by the host's sampler.

Axes: n rows of the UNet, b clips, f frames of a clip, c h w of a latent; n tokens, d channels of a text.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.ops
import comfy.samplers
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_patcher import ModelPatcher
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..adaptor import VideoAdaptor
from ..frame_layout import FrameLayout
from ..frame_noise import clip_noise
from .base_model import check_trainable, unet_of, unet_weights
from .frame_cache import CallCache, FrameCache, no_cache
from .motion_effect import Motion


class TrainingUnet:
    """The denoiser of a training run (``training.objective.Denoiser``) around a copy of a model's UNet.

    The copy has the weights of the model as it came, LoRAs included, in ``dtype``, and the patches that other nodes
    have set around its attention.  Raises ValueError for a UNet that takes more than latents.  Must be made and used
    outside inference mode.  With ``checkpointing``, activations
    inside residual and transformer blocks are computed again for the gradients instead of being kept.
    """

    def __init__(self, model: ModelPatcher, device: torch.device, dtype: torch.dtype, checkpointing: bool) -> None:
        check_trainable(model)
        self.dtype = dtype
        self.sampling = copy.deepcopy(model.get_model_object("model_sampling")).to(device)
        self.sigmas = self.sampling.sigmas.float()
        self.unet = unet_copy(model, device, dtype)
        if checkpointing:
            for module in self.unet.modules():
                if isinstance(module, (ResBlock, SpatialTransformer)):
                    module.forward = checkpointed(module.forward)
        given = model.model_options.get("transformer_options", {})
        self.options = {name: given[name] for name in ("patches", "patches_replace") if name in given}
        self._hooks = ExitStack()
        self._motion: Motion | None = None  # the same from call to call, because the cache knows it by itself

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """n c h w -> n c h w"""
        return self.sampling.noise_scaling(sigma, noise, latents)

    def denoised(self, out: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """n c h w -> n c h w"""
        return self.sampling.calculate_denoised(sigma, out, x)

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        fps: tuple[float, ...],
        adaptor: VideoAdaptor | None,
        layout: FrameLayout | None = None,
        cache: CallCache = no_cache,
    ) -> Tensor:
        """n c h w -> n c h w, fp32.  ``cache`` holds what the adaptor keeps of frames before those of the call.

        The hooks stay until the next call, because the gradients compute the blocks again.  Raises the host's own error
        when its stop button was pressed, so that no phase of a training is deaf to it.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._hooks.close()
        frames = len(x) // len(fps)
        options: dict[str, Any] = {**self.options, "cond_or_uncond": [0] * len(fps)}
        if adaptor is not None:
            layout = layout or FrameLayout.whole(len(fps), frames)
            if self._motion is None or (self._motion.adaptor, self._motion.fps) != (adaptor, fps):
                self._motion = Motion(adaptor=adaptor, fps=fps)
            for part in Motion.parts([(self._motion, layout)], cache):
                self._hooks.enter_context(part.hooked(self.unet))
                options = part.patched(options)
        out = self.unet(
            self.sampling.calculate_input(sigma, x).to(self.dtype),
            self.sampling.timestep(sigma).float(),
            context=repeat(text, "b n d -> (b f) n d", f=frames).to(self.dtype),
            transformer_options=options,
        )
        return out.float()

    def close(self) -> None:
        """Takes away the hooks of the last call."""
        self._hooks.close()


def unet_copy(model: ModelPatcher, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A UNet of the same kind and with the same weights, sharing nothing with the model.

    The weights come as a state dict, since some layers of the host have none before.
    """
    unet = unet_of(model)
    settings = model.model.model_config.unet_config | {"dtype": dtype}
    layers = model.model.model_config.custom_operations or comfy.ops.disable_weight_init
    made = type(unet)(**settings, device="meta", operations=layers)
    weights = {name: weight.to(device, dtype) for name, weight in unet_weights(model, unet.state_dict())}
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


def training_device() -> torch.device:
    """Where the host computes."""
    return comfy.model_management.get_torch_device()


def make_room() -> None:
    """Takes the host's models off the device, which training needs for itself; the host loads them again on demand."""
    if training_device().type != "cpu":
        comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def training_dtype(precision: str) -> torch.dtype:
    """The dtype to compute in: for ``auto``, bfloat16 where the device has it.  fp16 overflows in training."""
    device = training_device()
    if precision == "auto":
        able = getattr(torch.cpu, "get_capabilities", dict)()
        cpu = any(has for name, has in able.items() if name.endswith("_bf16"))
        fast = cpu if device.type == "cpu" else comfy.model_management.should_use_bf16(device)
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


@dataclass(frozen=True)
class SampleSettings:
    """``shape`` of the clip ``f c h w``, its fps, and how to sample it."""

    shape: tuple[int, int, int, int]
    fps: float
    steps: int
    cfg: float
    seed: int


@torch.no_grad()
def sample_latents(
    denoiser: TrainingUnet,
    adaptor: VideoAdaptor | None,
    text: Tensor,
    empty_text: Tensor,
    settings: SampleSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """A clip of the weights as they are in training, f c h w: Euler steps on the host's normal schedule.

    All frames together, or one after the other where the adaptor is trained for that; without an adaptor they are
    stills.  Text and empty text are ``n d`` and are repeated to one length.  ``progress`` is told which of the passes
    is next, and how many there are.
    """
    device, sampling = denoiser.sigmas.device, denoiser.sampling
    tokens = max(len(text), len(empty_text))
    both = torch.stack([repeat(x, "n d -> (r n) d", r=tokens // len(x)) for x in (text, empty_text)]).to(device)
    cache = FrameCache()

    def model(x: Tensor, sigma: Tensor, layout: FrameLayout, **_: object) -> Tensor:
        """f c h w -> f c h w, with guidance"""
        progress(next(passes), total)
        cache.begin_chunk()
        twice, levels = repeat(x, "f c h w -> (b f) c h w", b=2), repeat(sigma, "f -> (b f)", b=2)
        out = denoiser.predict(twice, levels, both, (settings.fps,) * 2, adaptor, layout, cache.of_call((0, 1)))
        denoised = denoiser.denoised(out, twice, levels)
        wanted, empty = rearrange(denoised, "(b f) c h w -> b f c h w", b=2)
        return empty + settings.cfg * (wanted - empty)

    def sampled(noise: Tensor, layout: FrameLayout) -> Tensor:
        cache.keeps = False
        x = sampling.noise_scaling(sigmas[:1], noise, torch.zeros_like(noise), max_denoise=True)
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, extra_args={"layout": layout}, disable=True)

    def shown(frame: Tensor, layout: FrameLayout) -> None:
        cache.keeps = True
        sigma = sigmas.new_tensor([adaptor.config.context_noise])
        noise = torch.randn(frame.shape, generator=generator).to(frame)
        model(sampling.noise_scaling(sigma, noise, frame), sigma, layout)

    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", settings.steps).to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    shared_noise = adaptor.config.shared_noise if adaptor is not None else 0.0
    noise = clip_noise(settings.shape, generator, shared_noise).to(device)
    together = adaptor is None or adaptor.config.frame_noise_levels == "one_a_clip"
    passes, total = count(1), settings.steps if together else (settings.steps + 1) * len(noise)
    try:
        if together:
            return sampled(noise, FrameLayout.whole(2, len(noise)))
        frames = []
        for place, own in enumerate(noise.split(1)):
            layout = FrameLayout(2, (place,), (0,))
            frames.append(sampled(own, layout))
            shown(frames[-1], layout)
        return torch.cat(frames)
    finally:
        cache.clear()
        denoiser.close()
