"""Noise that the frames of a clip share in part.

A frame's noise depends on the seed and on its place alone, so chunks, extensions and later starts agree.
Axes: n frames, ... one frame's noise.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import cosine_similarity

# Whose noise a frame shares: that of the clip's first frame, or that of the frame before.
NoiseKind = Literal["mixed", "progressive"]
# Unrelated noises of N numbers have a correlation of less than this by the root of N, but once in a million.
CHANCE = 5.0
# Unrelated noise, n ..., of the frames at n places of the batch.
OwnNoise = Callable[[Sequence[int]], Tensor]


def check_noise(share: float, kind: str, frames_per_clip: int) -> None:
    """Raises ValueError for settings of the node Frame Noise that cannot work."""
    if kind not in get_args(NoiseKind):
        raise ValueError(f"kind of Frame Noise must be {' or '.join(get_args(NoiseKind))}, found {kind!r}.")
    if not 0 <= share <= 1:
        raise ValueError(f"share of Frame Noise must lie in 0 to 1, found {share}.")
    if frames_per_clip < 0:
        raise ValueError(f"frames_per_clip of Frame Noise must be 0 or more, found {frames_per_clip}.")


def shared_with_first(noise: Tensor, share: float, frames_per_clip: int = 0) -> Tensor:
    """n ... -> n ...: of each frame's noise, ``share`` of the variance becomes that of its clip's first frame.

    As ``frame_noise`` does for "mixed", from noise that is there already.  The very same tensor for a share of 0.

    Frames may share noise before, where a node or a fixed seed has made it so: then only what is missing is added,
    because two noises that are alike add up to more than a variance of 1.
    """
    if share == 0:
        return noise
    places = range(len(noise))
    mixed = frame_noise(lambda wanted: noise[list(wanted)], places, share, "mixed", frames_per_clip)
    length, by_chance = frames_per_clip or len(noise), CHANCE / noise[0].numel() ** 0.5
    first = noise[[place - place % length for place in places]]
    for place, alike in enumerate(correlation(noise, first).tolist()):
        if place % length and abs(alike) > by_chance:
            mixed[place] = with_what_is_missing(noise[place], first[place], alike, share)
    return mixed


def with_what_is_missing(noise: Tensor, first: Tensor, alike: float, share: float) -> Tensor:
    """A frame's noise that has the correlation ``alike`` with the first frame's, with ``share`` of that at least.

    What is its own is set apart first, so that the variance stays 1.
    """
    if alike >= share**0.5:
        return noise
    own = (noise - alike * first) / (1 - alike**2) ** 0.5
    return share**0.5 * first + (1 - share) ** 0.5 * own


def correlation(noise: Tensor, other: Tensor) -> Tensor:
    """How alike the noises of frames are, n ... twice -> n: 0 for unrelated ones, 1 for the same."""
    return cosine_similarity(*(rearrange(x.float(), "n ... -> n (...)") for x in (noise, other)))


def is_shared(noise: Tensor, share: float, frames_per_clip: int = 0) -> bool:
    """Whether the noise of frames, n ..., is like that of their clip's first frame, as it is with such a share.

    Their correlation is then sqrt(share), on the average over many numbers; half of it is taken for it.
    """
    length = frames_per_clip or len(noise)
    places = [place for place in range(len(noise)) if place % length]
    first = [place - place % length for place in places]
    return not places or float(correlation(noise[places], noise[first]).mean()) >= share**0.5 / 2


def clip_noise(shape: tuple[int, ...], generator: torch.Generator, shared: float) -> Tensor:
    """Noise of one clip, f c h w, of variance 1; ``shared``, 0 to 1, is the share of it that is the first frame's."""
    noise = torch.randn(shape, generator=generator)
    return frame_noise(lambda places: noise[list(places)], range(shape[0]), shared, "mixed")


def check_shared_noise(share: object) -> None:
    """Raises ValueError unless ``share`` is a number from 0 to 1, as an adaptor's ``shared_noise`` must be."""
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise ValueError(f"shared_noise is a share and must lie in 0 to 1, found {share!r}")


def frame_noise(
    own: OwnNoise, places: Sequence[int], share: float, kind: NoiseKind, frames_per_clip: int = 0
) -> Tensor:
    """n ...: the noise of the frames at these places of the batch; ``own`` gives unrelated noise of any places.

    ``x_i = sqrt(r) x_j + sqrt(1 - r) e_i`` for r = share, where x_j is the noise of the clip's first frame (mixed) or
    of the frame before (progressive): variance 1 is kept.  A first frame's noise is its own.
    """
    length = frames_per_clip or max(places) + 1
    if kind == "mixed":
        first, noise = own([place - place % length for place in places]), own(places)
        mixed = share**0.5 * first + (1 - share) ** 0.5 * noise
        is_first = torch.tensor([place % length == 0 for place in places])
        mixed[is_first] = noise[is_first]
        return mixed
    chains: dict[int, Tensor] = {}
    for first in sorted({place - place % length for place in places}):
        last = max(place for place in places if place - place % length == first)
        before = None
        for place, noise in zip(range(first, last + 1), own(range(first, last + 1)), strict=True):
            before = noise if before is None else share**0.5 * before + (1 - share) ** 0.5 * noise
            chains[place] = before
    return torch.stack([chains[place] for place in places])
