"""What acts in one call of the UNet: which effects, at its noise level, with the tensors of its card, uncompiled."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from comfy.model_base import BaseModel
from torch import Tensor

from .causal_sampling import finished_frames
from .effect import CallPart, Effect, NoiseLevels, Options
from .frame_cache import ONCE, CallCache, cache_of_call
from .layout import clip_layout

logger = logging.getLogger(__name__)

# Where the options of a call hold the effects with the tensors of its card, and the noise levels at which each acts.
EFFECTS, LEVELS = "magicvideo_effects", "magicvideo_levels"


def with_effects_of_call(effects: Sequence[Effect], model: BaseModel, transformer_options: Options) -> Options:
    """The options with what the model around the UNet knows: how it is sampled, and on which card.

    Asked once a sampling, because reading a noise level lets a card wait.
    """
    sampling, patcher = model.model_sampling, model.current_patcher
    once = CallCache(made_once=transformer_options.get(ONCE)).once
    key = (*map(id, effects), id(sampling), id(patcher))
    own = once(("effects", *key), lambda: tuple(effect.on(patcher) if patcher else effect for effect in effects))
    levels = once(("levels", *key), lambda: tuple(effect.levels(sampling) for effect in own))
    return {**transformer_options, EFFECTS: own, LEVELS: levels}


def parts_of_call(effects: Sequence[Effect], rows: int, transformer_options: Options) -> list[CallPart]:
    """What acts in a call of so many rows: effects of one class together, classes by their place.

    The cache is asked for once a call, because it counts the calls.
    """
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
    if not acting:
        return []
    cache = cache_of_call(transformer_options)
    logger.debug("frames %s, batch %s", acting[0][1].positions, acting[0][1].batch)
    parts: list[CallPart] = []
    for kind, of_kind in groupby(acting, key=lambda one: type(one[0])):
        parts += kind.parts(list(of_kind), cache)
    return parts


def sigma_where_it_counts(sigmas: Tensor | None, levels: Iterable[NoiseLevels]) -> float | None:
    """The noise level of a call; None if the host does not say, and where effects act at all of them.

    A GPU waits while it is read, so only if need be.
    """
    if sigmas is None or all(own == NoiseLevels() for own in levels):
        return None
    return float(sigmas.flatten()[0])


@contextmanager
def uncompiled() -> Iterator[None]:
    """The UNet runs as it stands, although ``torch.compile`` was set on the model.

    Compiled code does not look whether modules have hooks, nor, as the host sets it, at a call's options: it would give
    what another call has had.  Nothing is compiled before torch's compiler was imported, which takes seconds.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
