"""What acts in one call of the UNet: which effects, at its noise level, with the tensors of its card."""

import logging
from collections.abc import Sequence
from itertools import groupby

from comfy.model_base import BaseModel
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS

from ..frame_layout import FrameLayout
from .call_part import CallPart, Options
from .effect import Effect
from .finished_frames import finished_frames
from .frame_cache import EFFECTS, ONCE, CallCache
from .layout import clip_layout
from .noise_levels import NoiseLevels, sigma_where_it_counts

logger = logging.getLogger(__name__)

# Where the options of a call hold the noise levels at which each of its effects acts.
LEVELS = "magicvideo_levels"
# Where they hold the settings for torch.compile; none if the model is not compiled.
COMPILED = "magicvideo_compiled"
Acting = tuple[Effect, FrameLayout]


def with_effects_of_call(effects: Sequence[Effect], model: BaseModel, transformer_options: Options) -> Options:
    """The options with what the model around the UNet knows: how it is sampled, on which card, and how it is compiled.

    Asked once a sampling, because reading a noise level lets a card wait.
    """
    sampling, patcher = model.model_sampling, model.current_patcher
    once = CallCache(made_once=transformer_options.get(ONCE)).once
    key = (*map(id, effects), id(sampling), id(patcher))
    own = once(("effects", *key), lambda: tuple(effect.on(patcher) if patcher else effect for effect in effects))
    levels = once(("levels", *key), lambda: tuple(effect.levels(sampling) for effect in own))
    compiled = {} if patcher is None else {COMPILED: patcher.model_options.get(TORCH_COMPILE_KWARGS)}
    return {**transformer_options, EFFECTS: own, LEVELS: levels, **compiled}


def acting_in_call(effects: Sequence[Effect], rows: int, transformer_options: Options) -> list[Acting]:
    """The effects that act in a call of so many rows, by their place, each with the frames as it counts clips."""
    finished = finished_frames(transformer_options)
    shown = finished is not None and finished.keeps  # finished frames are seen as all effects make them
    effects = transformer_options.get(EFFECTS, effects)
    levels = transformer_options.get(LEVELS) or [NoiseLevels()] * len(effects)
    sigma = sigma_where_it_counts(transformer_options.get("sigmas"), levels)
    acting = [
        (effect, clip_layout(rows, transformer_options, effect.frames_per_clip))
        for effect, own in sorted(zip(effects, levels, strict=True), key=lambda one: (one[0].place, one[0].node))
        if effect.acts_at(sigma, own) or (shown and effect.strength)
    ]
    if acting:
        logger.debug("frames %s, batch %s", acting[0][1].positions, acting[0][1].batch)
    return acting


def parts_of(acting: Sequence[Acting], cache: CallCache) -> list[CallPart]:
    """What they do in a call: effects of one class together, classes by their place."""
    parts: list[CallPart] = []
    for kind, of_kind in groupby(acting, key=lambda one: type(one[0])):
        parts += kind.parts(list(of_kind), cache)
    return parts
