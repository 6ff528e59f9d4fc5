"""Binds adaptors, and what needs none, to a clone of an image model, by the host's wrappers alone.

Nothing is attached to the UNet but during a call of it from our own clone: hooks and patches are set by ``around_unet``
and taken away in its ``finally``.  So there is nothing that another branch of the graph, an interrupt or a crash could
find in the image model.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import Sampler
from torch import Tensor, nn

from ..frame_noise import shared_with_first
from .acting import Acting, noise_levels
from .alignment import Alignment, AlignmentCall
from .base_model import check_fit
from .causal_windows import CausalWindows
from .directed_attention import DirectedAttention, DirectedCall, left_to_others
from .frame_cache import past_of
from .hints import own_hints
from .kept_frames import with_kept_frames
from .layout import check_batch, clip_layout, window_places
from .memory import planned_shape
from .motion import Motion
from .unet_call import UnetCall
from .versions import STOCK_WINDOW_WRAPPERS

logger = logging.getLogger(__name__)

Options = dict[str, Any]

KEY = "magicvideo"


class CallPart(Protocol):
    """Something that acts during one call of the UNet."""

    def hooks(self, unet: nn.Module) -> AbstractContextManager[None]:
        """Hooks on the UNet's modules, for as long as the context lasts."""

    def patched(self, transformer_options: Options) -> Options:
        """The options with its patches added; the caller's dicts and lists stay as they are."""


@dataclass(frozen=True)
class Binding:
    """All that is bound to one clone of a model, and what the host calls while it samples with it."""

    motions: tuple[Motion, ...] = ()
    looks: tuple[DirectedAttention, ...] = ()
    alignments: tuple[Alignment, ...] = ()

    @property
    def bound(self) -> tuple[Acting, ...]:
        return (*self.motions, *self.looks, *self.alignments)

    @property
    def clip_lengths(self) -> tuple[int, ...]:
        """Lengths of the clips in a batch; none where the whole batch is one."""
        return tuple(sorted({one.frames_per_clip for one in self.bound} - {0}))

    def acts(self, model_options: Options) -> bool:
        """Whether sampling is the pack's at all; if not, it stays the host's bit for bit."""
        return windows_of(model_options) is not None or any(one.strength for one in self.bound)

    def around_sampling(
        self,
        executor: WrapperExecutor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        """Refuses a latent batch that does not hold whole clips, before the first step; gives kept frames back exactly.

        The frames share noise where the adaptor was trained so: of several adaptors, as for the one that shares most.
        Where noise is to be left, kept frames have theirs too.
        """
        for one in self.bound:
            check_batch(noise.shape[0], one.frames_per_clip, one.node)
        model_options = executor.class_obj.model_options
        if others := left_to_others(self.looks, model_options.get("transformer_options", {})):
            logger.warning("Directed Attention leaves self-attention to another node at: %s.", ", ".join(others))
        ends_clean = bool(sigmas[-1] == 0)  # asked before, because a sampler may write into its sigmas
        if most := max(self.motions, key=lambda motion: motion.shared_noise, default=None):
            noise = shared_with_first(noise, most.shared_noise, most.frames_per_clip)
        samples = executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)
        if not (ends_clean and self.acts(model_options)):
            return samples
        return with_kept_frames(samples, latent_image, denoise_mask)

    def around_planning(
        self,
        executor: WrapperExecutor,
        model: ModelPatcher,
        noise_shape: Sequence[int],
        *args: object,
        **kwargs: object,
    ) -> tuple:
        """Lets the host plan memory for the temporal activations too, and for a chunk where there are chunks."""
        windows = windows_of(kwargs.get("model_options") or model.model_options)
        return executor(model, planned_shape(model, noise_shape, self.motions, self.looks, windows), *args, **kwargs)

    def around_conditionings(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: list,
        x_in: Tensor,
        timestep: Tensor,
        model_options: Options,
    ) -> list[Tensor]:
        """One denoising call, or a window's or chunk's share of it, with the hints of its own frames."""
        if not self.acts(model_options):
            return executor(model, conds, x_in, timestep, model_options)
        window = window_places(model_options.get("transformer_options", {}))
        places = range(x_in.shape[0]) if window is None else window
        with own_hints(conds, places, self.clip_lengths, part=window is not None) as own:
            return executor(model, own, x_in, timestep, model_options)

    def around_unet(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None,
        control: dict | None,
        transformer_options: Options,
        **kwargs: object,
    ) -> Tensor:
        """One call of the UNet, ``(b f) c h w -> (b f) c h w``, with all that acts at its noise level."""
        with ExitStack() as stack:
            for part in self.parts_of_call(x.shape[0], transformer_options):
                stack.enter_context(part.hooks(executor.class_obj))
                transformer_options = part.patched(transformer_options)
            return executor(x, timesteps, context, y, control, transformer_options, **kwargs)

    def parts_of_call(self, rows: int, transformer_options: Options) -> list[CallPart]:
        """Motions first, because alignment has the last word on what they make; in which order the nodes came is one.

        The past is asked for once a call, because it counts the calls.
        """
        sigmas = transformer_options.get("sigmas")
        sigma = float(sigmas.flatten()[0]) if sigmas is not None else None
        layouts = {
            one: clip_layout(rows, transformer_options, one.frames_per_clip) for one in self.bound if one.acts_at(sigma)
        }
        if not layouts:
            return []
        past = past_of(transformer_options)
        first = next(iter(layouts.values()))
        logger.debug("frames %s, runs %s", first.positions, first.runs)
        parts: list[CallPart] = []
        if motions := [(motion, layouts[motion]) for motion in self.motions if motion in layouts]:
            parts.append(UnetCall(motions, past))
        if looks := [(look, layouts[look]) for look in self.looks if look in layouts]:
            parts.append(DirectedCall(looks, past))
        for number, alignment in enumerate(self.alignments):
            if alignment in layouts and alignment.sites:
                parts.append(AlignmentCall(number, alignment, layouts[alignment], past))
        return parts


def windows_of(model_options: Options) -> CausalWindows | None:
    """The causal windows of a model; None where it has none, or others."""
    handler = model_options.get("context_handler")
    return handler if isinstance(handler, CausalWindows) else None


def install(bound: ModelPatcher, binding: Binding) -> None:
    """Sets a binding on a clone of a model, in the place of the one it has."""
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, binding.around_sampling),
        (WrappersMP.PREPARE_SAMPLING, binding.around_planning),
        (WrappersMP.CALC_COND_BATCH, binding.around_conditionings),
        (WrappersMP.DIFFUSION_MODEL, binding.around_unet),
    ):
        bound.remove_wrappers_with_key(kind, KEY)
        bound.add_wrapper_with_key(kind, KEY, wrapper)
    bound.set_attachments(KEY, binding)
    if windows := windows_of(bound.model_options):
        bound.model_options["context_handler"] = replace(windows, clip_lengths=binding.clip_lengths)


def with_causal_windows(model: ModelPatcher, chunk_frames: int = 8, offload: bool = False) -> ModelPatcher:
    """A clone of the model that takes a long batch through the UNet in chunks; bound or not, and before or after it.

    Takes the place of other context windows.  Raises ValueError when the settings are unusable.
    """
    windows = CausalWindows(chunk_frames, offload)
    bound = model.clone()
    if windows_of(bound.model_options) is None and "context_handler" in bound.model_options:
        logger.warning("Causal Windows takes the place of the context windows that were set on the model before.")
    for kind, key in STOCK_WINDOW_WRAPPERS:
        bound.remove_wrappers_with_key(kind, key)
    bound.model_options["context_handler"] = windows
    install(bound, bound.get_attachment(KEY) or Binding())
    return bound


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
    motion = Motion(
        adaptor=adaptor.model,
        strength=strength,
        fps=fps,
        frames_per_clip=frames_per_clip,
        levels=noise_levels(model, start_percent, end_percent),
    )
    bound = with_more(model, motions=(motion,))
    others = [patcher for patcher in bound.get_additional_models_with_key(KEY) if patcher.model is not adaptor.model]
    bound.set_additional_models(KEY, [*others, adaptor])
    return bound


def with_more(model: ModelPatcher, **added: tuple[Acting, ...]) -> ModelPatcher:
    """A clone of the model with more in its binding, by the names of its fields."""
    bound = model.clone()
    before = bound.get_attachment(KEY) or Binding()
    install(bound, replace(before, **{name: (*getattr(before, name), *more) for name, more in added.items()}))
    return bound
