"""Binds adaptors to a clone of an image model, by the host's wrappers alone.

Nothing is attached to the UNet but during a call of it from our own clone: hooks and patches are set by ``around_unet``
and taken away in its ``finally``.  So there is nothing that another branch of the graph, an interrupt or a crash could
find in the image model.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .base_model import check_fit
from .layout import check_batch, clip_layout
from .memory import with_temporal_memory
from .motion import Motion
from .unet_call import UnetCall

logger = logging.getLogger(__name__)

KEY = "magicvideo"


@dataclass(frozen=True)
class Binding:
    """All motions bound to one clone of a model, and what the host calls while it samples with it."""

    motions: tuple[Motion, ...]

    def around_sampling(self, executor: Callable, noise: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Refuses a latent batch that does not hold whole clips, before the first step."""
        for motion in self.motions:
            check_batch(noise.shape[0], motion.frames_per_clip)
        return executor(noise, *args, **kwargs)

    def around_planning(
        self,
        executor: Callable,
        model: ModelPatcher,
        noise_shape: list[int],
        *args: object,
        **kwargs: object,
    ) -> tuple:
        """Lets the host plan memory for the temporal activations too."""
        return executor(model, with_temporal_memory(model, noise_shape, len(self.motions)), *args, **kwargs)

    def around_unet(
        self,
        executor: Callable,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None,
        control: dict | None,
        transformer_options: dict[str, Any],
        **kwargs: object,
    ) -> Tensor:
        """One call of the UNet, ``(b f) c h w -> (b f) c h w``, with the motions that act at its noise level."""
        sigmas = transformer_options.get("sigmas")
        sigma = float(sigmas.flatten()[0]) if sigmas is not None else None
        acting = [motion for motion in self.motions if motion.acts_at(sigma)]
        if not acting:
            return executor(x, timesteps, context, y, control, transformer_options, **kwargs)
        layouts = [clip_layout(x.shape[0], transformer_options, motion.frames_per_clip) for motion in acting]
        logger.debug("frames %s, runs %s", layouts[0].positions, layouts[0].runs)
        call = UnetCall(list(zip(acting, layouts, strict=True)))
        with call.convolution_hooks(executor.class_obj):
            return executor(x, timesteps, context, y, control, call.patched(transformer_options), **kwargs)


def bind(
    model: ModelPatcher,
    adaptor: ModelPatcher,
    strength: float = 1.0,
    fps: float = 8.0,
    frames_per_clip: int = 0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> ModelPatcher:
    """A clone of the model that treats a latent batch as the frames of clips; the model itself stays as it is.

    ``adaptor`` is a patcher made by ``hosted``.  On a model that is bound already the two motions add up.  Raises
    ValueError when the model or the settings do not fit.
    """
    check_fit(model, adaptor.model.config)
    if not (0.0 <= start_percent <= 1.0 and 0.0 <= end_percent <= 1.0):
        raise ValueError(f"start_percent and end_percent must lie in 0 to 1, found {start_percent} and {end_percent}.")
    sampling = model.get_model_object("model_sampling")
    start, end = (float(sampling.percent_to_sigma(p)) for p in (start_percent, end_percent))
    motion = Motion(adaptor.model, strength, fps, frames_per_clip, start if start_percent > 0 else math.inf, end)
    bound = model.clone()
    before = bound.get_attachment(KEY)
    binding = Binding((*(before.motions if before else ()), motion))
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, binding.around_sampling),
        (WrappersMP.PREPARE_SAMPLING, binding.around_planning),
        (WrappersMP.DIFFUSION_MODEL, binding.around_unet),
    ):
        bound.remove_wrappers_with_key(kind, KEY)
        bound.add_wrapper_with_key(kind, KEY, wrapper)
    bound.set_attachments(KEY, binding)
    others = [patcher for patcher in bound.get_additional_models_with_key(KEY) if patcher.model is not adaptor.model]
    bound.set_additional_models(KEY, [*others, adaptor])
    return bound
