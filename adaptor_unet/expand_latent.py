"""Stills or clips become longer clips: each goes on with its last frame again and again, or back and forth.

Axes: b clips, f frames given for each, c channels, h height, w width; n = b f.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor


def shown(given: int, frames: int, ping_pong: bool = False) -> list[int]:
    """Which of the given frames each frame of the longer clip shows, counted from 0.

    Behind the given ones the last again and again; with ``ping_pong`` they go backwards, forwards and so on.  Back and
    forth, ``2 given - 2`` frames are a loop: the next one would be the first.
    """
    if not ping_pong or given == 1:
        return [min(frame, given - 1) for frame in range(frames)]
    way = 2 * given - 2
    return [min(frame % way, way - frame % way) for frame in range(frames)]


def lengthen(x: Tensor, given: int, sources: Sequence[int]) -> Tensor:
    """(b given) ... -> (b f) ..., clip after clip; ``sources``: which of the given frames each of the f shows."""
    clips = rearrange(x, "(b f) ... -> b f ...", f=given)
    return rearrange(clips[:, list(sources)], "b f ... -> (b f) ...")


def longer_batch_index(batch_index: list[int], given: int, frames: int) -> list[int]:
    """Batch indices of the longer clips: given frames keep theirs, each new one gets the next that nobody has."""
    used = set(batch_index)
    longer = []
    for start in range(0, len(batch_index), given):
        clip = batch_index[start : start + given]
        for _ in range(frames - given):
            following = clip[-1] + 1
            while following in used:
                following += 1
            used.add(following)
            clip.append(following)
        longer += clip
    return longer


def keeping_mask(clips: int, given: int, frames: int, height: int, width: int) -> Tensor:
    """A noise mask, ``(b f) 1 h w``: 0 where a frame was given and stays, 1 where a new one is to be made."""
    new = (torch.arange(frames) >= given).float()
    return repeat(new, "f -> (b f) 1 h w", b=clips, h=height, w=width)


def expand_latent(
    latent: dict[str, Any], frames: int, frames_per_clip: int = 1, keep_given: bool = False, ping_pong: bool = False
) -> dict[str, Any]:
    """A ComfyUI latent of ``frames`` frames a clip, from one of ``frames_per_clip``; the latent itself stays.

    A noise mask of several entries is lengthened too; ``keep_given`` puts one in its place that keeps the given
    frames and frees the new ones.  Batch indices (which noise each frame gets) go on so that every frame has its own.
    ``ping_pong``: new frames are the given ones backwards, then forwards and so on, in place of the last.
    Raises ValueError when the latent does not hold whole clips or the clips would get shorter.
    """
    samples = latent["samples"]
    if samples.ndim != 4:
        raise ValueError(
            f"Expand Latent to Clip takes image latents, frames by channels by height by width; this one has "
            f"{samples.ndim} dimensions. Use a latent from VAE Encode or Empty Latent Image."
        )
    if samples.shape[0] % frames_per_clip:
        raise ValueError(
            f"frames_per_clip is {frames_per_clip}, but the latent holds {samples.shape[0]} frames, which is no whole "
            "number of clips. For stills set it to 1, for one clip to its length."
        )
    if frames < frames_per_clip:
        raise ValueError(f"The clips have {frames_per_clip} frames already, more than the {frames} asked for.")
    sources = shown(frames_per_clip, frames, ping_pong)
    out = latent | {"samples": lengthen(samples, frames_per_clip, sources)}
    mask = latent.get("noise_mask")
    if keep_given:
        clips = samples.shape[0] // frames_per_clip
        out["noise_mask"] = keeping_mask(clips, frames_per_clip, frames, *samples.shape[2:])
    elif mask is not None and 1 < mask.shape[0] <= samples.shape[0]:
        own = mask[[place % mask.shape[0] for place in range(samples.shape[0])]]  # as the host shares masks out
        out["noise_mask"] = lengthen(own, frames_per_clip, sources)
    if "batch_index" in latent:
        out["batch_index"] = longer_batch_index(list(latent["batch_index"]), frames_per_clip, frames)
    return out
