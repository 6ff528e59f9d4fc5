"""How many frames, of which clips, does one call of the UNet hold?  Read anew at each call, remembered nowhere."""

import logging
from typing import Any

from ..frame_layout import FrameLayout
from .page_words import tell_page
from .versions import window_frames

logger = logging.getLogger(__name__)

ONE_FRAME = (
    "the latent batch holds one frame, so the result is one picture. For a clip, set batch_size of Empty Latent Image "
    "to the number of frames, such as 16."
)


def window_places(transformer_options: dict[str, Any]) -> list[int] | None:
    """Which frames of the latent batch a call holds, in the order of its rows; None for all of them.

    A window of the host that cuts the picture, not the frames, holds all of them.
    """
    window = transformer_options.get("context_window")
    return None if window is None or window.dim != 0 else window_frames(window)


def clip_layout(rows: int, transformer_options: dict[str, Any], frames_per_clip: int = 0) -> FrameLayout:
    """Layout of a batch of ``rows`` latents.

    The host joins conditionings along the batch and says how many in ``cond_or_uncond``; each has all frames of the
    window, or of the whole latent batch when there is no window.  ``frames_per_clip`` 0 makes the whole batch one clip.
    Clips of which the call holds the same frames stand side by side in the batch.
    """
    conditionings = len(transformer_options.get("cond_or_uncond") or [0])
    frames = rows // conditionings
    window = window_places(transformer_options)
    places = list(range(frames)) if window is None else window
    length = frames_per_clip or max(places) + 1
    clips = tuple(place // length for place in places)
    positions = tuple(place % length for place in places)
    beside = len(set(clips))
    each = frames // beside
    if window is None or (frames == beside * each and positions == positions[:each] * beside):
        return FrameLayout(conditionings * beside, positions[:each], clips[:each])
    return FrameLayout(conditionings, positions, clips)


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
