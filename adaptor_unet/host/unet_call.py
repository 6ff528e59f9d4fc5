"""One call of the UNet: which frames of which clips it holds, and which effects act in it, with which tensors.

The frames are counted anew at each call, and remembered nowhere.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import groupby

from comfy.model_base import BaseModel
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from torch import Tensor

from ..frame_layout import FrameLayout
from .call_part import CallPart, TransformerOptions
from .effect import Effect, NoiseLevels
from .frame_cache import EFFECTS_KEY, FRAMES_KEY, MADE_ONCE_KEY, CallCache, FrameCache
from .negative_sides import NEGATIVE_SIDES_KEY
from .page_words import tell_page
from .versions import window_frames

logger = logging.getLogger(__name__)

# Where the options of a call hold the noise levels at which each of its effects acts.
LEVELS_KEY = "magicvideo_levels"
# Where they hold the settings for torch.compile; none if the model is not compiled.
COMPILED_KEY = "magicvideo_compiled"
# Where they hold the number of frames of the whole batch, which a call has if no window cuts them.
BATCH_FRAMES_KEY = "magicvideo_batch_frames"
# Where they hold which frames of the batch a call has, once they were asked for.
PLACES_KEY = "magicvideo_places"
Acting = tuple[Effect, FrameLayout]

ONE_FRAME = (
    "the latent batch holds one frame, so the result is one picture. For a clip, set batch_size of Empty Latent Image "
    "to the number of frames, such as 16."
)


def window_places(transformer_options: TransformerOptions) -> list[int] | None:
    """Which frames of the latent batch a call holds, in the order of its rows; None for all of them.

    A window of the host that cuts the picture, not the frames, holds all of them.
    """
    if PLACES_KEY in transformer_options:
        return transformer_options[PLACES_KEY]
    window = transformer_options.get("context_window")
    return None if window is None or window.dim != 0 else window_frames(window)


def clip_layout(rows: int, transformer_options: TransformerOptions, frames_per_clip: int = 0) -> FrameLayout:
    """Layout of a batch of ``rows`` latents.

    The host joins conditionings along the batch and says how many in ``cond_or_uncond``; each has all frames of the
    window, or of the whole latent batch when there is no window.  ``frames_per_clip`` 0 makes the whole batch one clip.
    Clips of which the call holds the same frames stand side by side in the batch: of two clips of 16 frames, a chunk
    with frames 0 to 3 of both has b = 2 for each conditioning, and f = 4.  A window of the host that runs from one clip
    into the next has them all in one b, told apart by ``clip_of``.
    """
    conditionings = transformer_options.get("cond_or_uncond") or [0]
    negative = tuple(side in transformer_options.get(NEGATIVE_SIDES_KEY, ()) for side in conditionings)
    frames = rows // len(conditionings)
    window = window_places(transformer_options)
    places = list(range(frames)) if window is None else window
    length = frames_per_clip or max(places) + 1
    clips = tuple(place // length for place in places)
    positions = tuple(place % length for place in places)
    side_by_side = len(set(clips))
    each = frames // side_by_side
    if window is None or (frames == side_by_side * each and positions == positions[:each] * side_by_side):
        of_clips = tuple(one for one in negative for _ in range(side_by_side))
        return FrameLayout(len(of_clips), positions[:each], clips[:each], negative=of_clips)
    return FrameLayout(len(conditionings), positions, clips, negative=negative)


def sigma_where_it_counts(
    sigmas: Tensor | None, levels: Iterable[NoiseLevels], cache: FrameCache | None = None
) -> float | None:
    """The noise level of a call; None if the host does not say, and where effects act at all of them.

    A GPU waits while it is read, so only if need be, and once a step: the cache of a step's chunks has it then.
    """
    if sigmas is None or all(own == NoiseLevels() for own in levels):
        return None
    return float(sigmas.flatten()[0]) if cache is None else cache.sigma


def with_tiles_counted(rows: int, transformer_options: TransformerOptions) -> TransformerOptions:
    """The options of a call with so many rows, each conditioning named as often as the rows have it.

    Nodes that join tiles of a picture in one call put them one behind the other, each with all conditionings, and leave
    the host's list of conditionings as it was.
    """
    window, conditionings = window_places(transformer_options), transformer_options.get("cond_or_uncond") or []
    frames = transformer_options.get(BATCH_FRAMES_KEY, 0) if window is None else len(window)
    of_tile = len(conditionings) * frames
    if not of_tile or rows % of_tile or rows == of_tile:
        return transformer_options
    lists = {name: transformer_options[name] for name in ("cond_or_uncond", "uuids") if name in transformer_options}
    return {**transformer_options, **{name: list(of_one) * (rows // of_tile) for name, of_one in lists.items()}}


def with_effects_of_call(
    effects: Sequence[Effect], model: BaseModel, rows: int, transformer_options: TransformerOptions
) -> TransformerOptions:
    """The options of a call with so many rows, with what the model around the UNet knows: how it is sampled, on which
    card, how it is compiled, and which frames the call has.

    Levels are asked for once a sampling, because reading a noise level lets a card wait.
    """
    sampling, patcher = model.model_sampling, model.current_patcher
    once = CallCache(made_once=transformer_options.get(MADE_ONCE_KEY)).once
    key = (*map(id, effects), id(sampling), id(patcher))
    own = once(("effects", *key), lambda: tuple(effect.on(patcher) if patcher else effect for effect in effects))
    levels = once(("levels", *key), lambda: tuple(effect.levels(sampling) for effect in own))
    compiled = {} if patcher is None else {COMPILED_KEY: patcher.model_options.get(TORCH_COMPILE_KWARGS)}
    seen = {EFFECTS_KEY: own, LEVELS_KEY: levels, PLACES_KEY: window_places(transformer_options)}
    return {**with_tiles_counted(rows, transformer_options), **seen, **compiled}


def acting_in_call(effects: Sequence[Effect], rows: int, transformer_options: TransformerOptions) -> list[Acting]:
    """The effects that act in a call of so many rows, by their stage, each with the frames as it counts clips."""
    cache = transformer_options.get(FRAMES_KEY)
    shown = cache is not None and cache.shows_finished  # finished frames are seen as all effects make them
    effects = transformer_options.get(EFFECTS_KEY, effects)
    levels = transformer_options.get(LEVELS_KEY) or [NoiseLevels()] * len(effects)
    sigma = sigma_where_it_counts(transformer_options.get("sigmas"), levels, cache)
    acting = [
        (effect, clip_layout(rows, transformer_options, effect.frames_per_clip))
        for effect, own in sorted(zip(effects, levels, strict=True), key=lambda one: (one[0].stage, one[0].node))
        if effect.acts_at(sigma, own) or (shown and effect.strength)
    ]
    if acting:
        logger.debug("frames %s, batch %s", acting[0][1].positions, acting[0][1].batch)
    return acting


def parts_of(acting: Sequence[Acting], cache: CallCache) -> list[CallPart]:
    """What they do in a call: effects of one class together, classes by their stage."""
    parts: list[CallPart] = []
    for kind, of_kind in groupby(acting, key=lambda one: type(one[0])):
        parts += kind.parts(list(of_kind), cache)
    return parts


def tell_of_one_frame(frames: int, node: str) -> None:
    """Says what to set when the latent batch is one latent, which is a clip of one frame and rarely what is wanted."""
    if frames == 1:
        logger.warning("%s: %s", node, ONE_FRAME)
        tell_page(node, ONE_FRAME)


def check_batch(frames: int, frames_per_clip: int, node: str) -> None:
    """Raises ValueError when the latent batch does not hold whole clips as ``node`` counts them."""
    if frames_per_clip and frames % frames_per_clip:
        raise ValueError(
            f"frames_per_clip of {node} is {frames_per_clip}, but the latent batch holds {frames} frames, "
            f"which is no whole number of clips. Use a batch of {frames_per_clip}, {2 * frames_per_clip}, ... "
            "or set frames_per_clip to 0 to make the whole batch one clip."
        )
