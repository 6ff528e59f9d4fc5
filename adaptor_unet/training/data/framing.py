"""From a file's frames to frames of the size that is trained: resized, cropped, perhaps mirrored.

Axes: f frames, h height, w width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import log
from random import Random

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from .data_settings import DataSettings
from .sub_clips import UnfitClipError

# Buckets longer than this would show SD1.5 shapes that it has hardly seen.
MOST_ASPECT = 2.0
# A file's picture may have so many times the pixels that are trained, and is never refused below the first limit, which
# is that of 512 x 512: frames of 8K and photographs of 64 million pixels are read, at any size of training.
MOST_SHRINKING = 256
MOST_PIXELS = MOST_SHRINKING * 512 * 512
# A picture of which less than one part in so many fits into the frame would be blown up to show next to nothing.
MOST_CROPPING = 32


def most_pixels(settings: DataSettings) -> int:
    """Most pixels of a file's picture that is worth reading for the size that is trained."""
    return max(MOST_PIXELS, MOST_SHRINKING * settings.width * settings.height)


@dataclass(frozen=True)
class Framing:
    """One crop for all frames of a sub-clip.

    ``across`` and ``down`` say where it lies in what is left over, 0 at the left or top and 1 at the right or bottom.
    """

    across: float = 0.5
    down: float = 0.5
    flip: bool = False


def draw_framing(settings: DataSettings, random: Random) -> Framing:
    """A framing drawn at random, as the settings want it.

    Always takes the same count of random numbers, so that one setting does not change what another draws.
    """
    across, down, mirror = random.random(), random.random(), random.random()
    if settings.crop == "centre":
        across = down = 0.5
    return Framing(across, down, settings.flip and mirror < 0.5)


def frame_size(width: int, height: int, settings: DataSettings) -> tuple[int, int]:
    """Width and height at which a clip of the given size is trained.

    With buckets, the size nearest in shape to the clip's among those in steps of ``bucket_step`` that have at most the
    area of the settings; of two equally near the larger one.
    """
    if not settings.bucket_sizes:
        return settings.width, settings.height
    step, area = settings.bucket_step, settings.width * settings.height
    sizes = [(w, area // w // step * step) for w in range(step, area // step + 1, step)]
    usual = [size for size in sizes if max(size) <= MOST_ASPECT * min(size)] or sizes
    return min(usual, key=lambda size: (abs(log(size[0] / size[1] * height / width)), -size[0] * size[1]))


def framed(frames: Iterable[Tensor], size: tuple[int, int], framing: Framing) -> Iterator[Tensor]:
    """Each frame, h w 3 in uint8, as h w 3 float in 0..1 of the given width and height."""
    for frame in frames:
        picture = cropped(covering(frame, size), size, framing)
        yield picture.flip(1) if framing.flip else picture


def covering(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """The smallest picture of the frame's shape that covers ``size``.  h w 3 in uint8 -> h w 3 float in 0..1

    Raises UnfitClipError for a frame that is far too long or too wide, before anything is allocated.
    """
    height, width = frame.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    if width * height * scale**2 > MOST_CROPPING * size[0] * size[1]:
        raise UnfitClipError(
            f"is {width} x {height}; less than one part in {MOST_CROPPING} of it would be seen at {size[0]} x {size[1]}"
        )
    wanted = max(size[1], round(height * scale)), max(size[0], round(width * scale))
    picture = rearrange(frame, "h w c -> 1 c h w")
    if wanted != (height, width):
        # Antialiasing averages what falls together when a picture shrinks; without it, edges flicker as they move.
        # In bytes it took a fourteenth of the time that it took in floats (1080 lines to 256, one thread).
        picture = interpolate(picture, wanted, mode="bicubic", antialias=True, align_corners=False)
    return rearrange(picture, "1 c h w -> h w c").to(torch.float32) / 255


def cropped(picture: Tensor, size: tuple[int, int], framing: Framing) -> Tensor:
    """h w 3 -> h w 3: the part of a picture that the framing keeps, of the given width and height."""
    top = round((picture.shape[0] - size[1]) * framing.down)
    left = round((picture.shape[1] - size[0]) * framing.across)
    return picture[top : top + size[1], left : left + size[0]]
