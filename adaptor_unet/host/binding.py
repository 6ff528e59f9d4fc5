"""Binds effects to a clone of an image model, by the host's wrappers alone.

Nothing is attached to the UNet but during a call of it from our own clone: hooks and patches are set by ``around_unet``
and taken away in its ``finally``.  So there is nothing that another branch of the graph, an interrupt or a crash could
find in the image model.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider, Sampler
from torch import Tensor

from .call_part import ModelOptions, SamplerArguments, TransformerOptions
from .causal_sampling import causal_sampling, with_kept_frames
from .causal_windows import CausalWindows, windows_of, with_frame_record
from .compiled_call import CompiledCalls, uncompiled
from .effect import Effect
from .finished_frames import finished_frames
from .frame_cache import MADE_ONCE_KEY, MadeOnce, cache_of_call
from .hints import own_hints
from .memory import plan_last, planned_shape
from .negative_sides import NEGATIVES_KEY, negative_conditionings, with_negative_sides
from .noise import noise_as_trained
from .preview import sample_together
from .step_state import refuse_step_state
from .unet_call import (
    BATCH_FRAMES_KEY,
    COMPILED_KEY,
    acting_in_call,
    check_batch,
    parts_of,
    tell_of_one_frame,
    window_places,
    with_effects_of_call,
)
from .versions import STOCK_WINDOW_WRAPPERS

logger = logging.getLogger(__name__)

BINDING_KEY = "magicvideo"


@dataclass(frozen=True)
class Binding:
    """The effects bound to one clone of a model, in the order of their nodes, and what the host calls while it samples
    with that clone."""

    effects: tuple[Effect, ...] = ()

    @property
    def clip_lengths(self) -> tuple[int, ...]:
        """Each ``frames_per_clip`` of the effects, in frames; none where the whole batch is one clip."""
        return tuple(sorted({effect.frames_per_clip for effect in self.effects} - {0}))

    @cached_property
    def compiled(self) -> CompiledCalls:
        """The functions that run in place of the UNet's call where ``torch.compile`` is set on the model."""
        return CompiledCalls(self.effects)

    def acts(self, model_options: ModelOptions) -> bool:
        """Whether sampling is the pack's at all; if not, it stays the host's bit for bit."""
        return windows_of(model_options) is not None or any(effect.strength for effect in self.effects)

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

        ``f c h w``; arguments as the host's.  Frames share noise where an effect wants it: of several, as the one that
        shares most.  Where noise is to be left in the end, kept frames have theirs too.  Raises ValueError.
        """
        model_options = executor.class_obj.model_options
        plan_last(BINDING_KEY, model_options)
        refuse_step_state(self.effects, len(noise), model_options)
        for effect in self.effects:
            check_batch(noise.shape[0], effect.frames_per_clip, effect.node)
            effect.before_sampling(noise.shape[0], model_options)
        if acting := [effect.node for effect in self.effects if effect.strength]:
            tell_of_one_frame(len(noise), acting[0])
        ends_clean = bool(sigmas[-1] == 0)  # asked before, because a sampler may write into its sigmas
        noise = noise_as_trained(noise, self.effects, sigmas, latent_image)
        samples = executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)
        if not (ends_clean and self.acts(model_options)):
            return samples
        return with_kept_frames(samples, latent_image, denoise_mask)

    def around_sampler(
        self,
        executor: WrapperExecutor,
        guider: CFGGuider,
        sigmas: Tensor,
        extra_args: SamplerArguments,
        callback: Callable | None,
        noise: Tensor,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        """Runs the sampler once for the whole batch, or once a chunk where frames are made one after the other."""
        model_options, made_once = extra_args["model_options"], MadeOnce()
        causal = causal_sampling(self.effects, len(noise), model_options)
        options = {**model_options.get("transformer_options", {}), MADE_ONCE_KEY: made_once}
        options |= {BATCH_FRAMES_KEY: len(noise)} if causal is None else {}
        options[NEGATIVES_KEY] = negative_conditionings(guider)
        extra_args = {**extra_args, "model_options": {**model_options, "transformer_options": options}}
        given = (executor, guider, sigmas, extra_args, callback, noise, *args)
        try:
            return sample_together(*given, **kwargs) if causal is None else causal.sample(*given, **kwargs)
        finally:
            made_once.clear()

    def around_planning(
        self,
        executor: WrapperExecutor,
        model: ModelPatcher,
        noise_shape: Sequence[int],
        *args: object,
        **kwargs: object,
    ) -> tuple:
        """Lets the host plan memory for the temporal activations too, and for a chunk where there are chunks."""
        model_options = kwargs.get("model_options") or model.model_options
        windows = windows_of(model_options)
        at_once, offloaded = (windows.chunk_frames, windows.offload) if windows else (noise_shape[0], False)
        if causal := causal_sampling(self.effects, noise_shape[0], model_options):
            at_once = causal.order.chunk * noise_shape[0] // causal.clip
        return executor(model, planned_shape(model, noise_shape, self.effects, at_once, offloaded), *args, **kwargs)

    def around_conditionings(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: list,
        x_in: Tensor,
        timestep: Tensor,
        model_options: ModelOptions,
    ) -> list[Tensor]:
        """One denoising call, or a window's or chunk's share of it."""
        if not self.acts(model_options):
            return executor(model, conds, x_in, timestep, model_options)
        model_options = with_negative_sides(model_options, conds)
        finished = finished_frames(model_options.get("transformer_options", {}))
        if finished is None:
            return self.denoise_with_hints(executor, model, conds, x_in, timestep, model_options)
        denoise = partial(self.denoise_with_hints, executor)
        return finished.show_then_denoise(denoise, model, conds, x_in, timestep, model_options)

    def denoise_with_hints(
        self,
        executor: WrapperExecutor,
        model: BaseModel,
        conds: list,
        x_in: Tensor,
        timestep: Tensor,
        model_options: ModelOptions,
    ) -> list[Tensor]:
        """The host's denoising call with the ControlNet hints of its own frames, and the record of them."""
        options = model_options.get("transformer_options", {})
        window = window_places(options)
        places = range(x_in.shape[0]) if window is None else window
        if window is not None and BATCH_FRAMES_KEY in options:
            model_options = with_frame_record(model_options, window, options[BATCH_FRAMES_KEY])
        with own_hints(conds, places, self.clip_lengths, window is not None, options) as own:
            return executor(model, own, x_in, timestep, model_options)

    def around_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor,
        control: dict | None,
        transformer_options: TransformerOptions,
        **kwargs: object,
    ) -> Tensor:
        """Tells the UNet's call what acts, at which noise levels: the model around it knows how it is sampled, and on
        which card."""
        options = with_effects_of_call(self.effects, executor.class_obj, x.shape[0], transformer_options)
        with uncompiled(self.effects):
            return executor(x, timesteps, c_concat, c_crossattn, control, options, **kwargs)

    def around_unet(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None,
        control: dict | None,
        transformer_options: TransformerOptions,
        **kwargs: object,
    ) -> Tensor:
        """One call of the UNet, ``(b f) c h w -> (b f) c h w``, with all that acts at its noise level."""
        acting = acting_in_call(self.effects, x.shape[0], transformer_options)
        compiled = None
        if acting and transformer_options.get(COMPILED_KEY) is not None:
            compiled = self.compiled.of_call(acting, transformer_options, executor.class_obj)
        parts, call = compiled or (parts_of(acting, cache_of_call(transformer_options)), WrapperExecutor.__call__)
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(part.hooked(executor.class_obj))
                transformer_options = part.patched(transformer_options)
            return call(executor, x, timesteps, context, y, control, transformer_options, **kwargs)


def install(bound: ModelPatcher, binding: Binding) -> None:
    """Sets a binding on a clone of a model, in the place of the one it has."""
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, binding.around_sampling),
        (WrappersMP.SAMPLER_SAMPLE, binding.around_sampler),
        (WrappersMP.PREPARE_SAMPLING, binding.around_planning),
        (WrappersMP.CALC_COND_BATCH, binding.around_conditionings),
        (WrappersMP.APPLY_MODEL, binding.around_model),
        (WrappersMP.DIFFUSION_MODEL, binding.around_unet),
    ):
        bound.remove_wrappers_with_key(kind, BINDING_KEY)
        bound.add_wrapper_with_key(kind, BINDING_KEY, wrapper)
    bound.set_attachments(BINDING_KEY, binding)
    if windows := windows_of(bound.model_options):
        bound.model_options["context_handler"] = replace(windows, clip_lengths=binding.clip_lengths)


def with_causal_windows(model: ModelPatcher, chunk_frames: int, offload: bool = False) -> ModelPatcher:
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
    install(bound, bound.get_attachment(BINDING_KEY) or Binding())
    return bound


def with_effect(model: ModelPatcher, effect: Effect) -> ModelPatcher:
    """A clone of the model on which the effect acts beside those that are there; the model itself stays as it is."""
    bound = model.clone()
    before = bound.get_attachment(BINDING_KEY) or Binding()
    install(bound, Binding((*before.effects, effect)))
    effect.attach(bound)
    return bound
