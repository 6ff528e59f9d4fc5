"""All frames of a clip side by side, and the clip as an animated picture.

Axes: f frames, h height, w width, 3 colours.
"""

import math
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

LEAST_SIDE = 256


def contact_sheet(frames: Tensor, columns: int = 8) -> Tensor:
    """f h w 3 -> h w 3: rows of frames in reading order with a white line between them."""
    columns = min(columns, len(frames))
    rows = math.ceil(len(frames) / columns)
    padded = torch.nn.functional.pad(frames, (0, 0, 2, 2, 2, 2), value=1.0)
    missing = rows * columns - len(frames)
    padded = torch.cat([padded, torch.ones(missing, *padded.shape[1:])])
    return rearrange(padded, "(r k) h w c -> (r h) (k w) c", k=columns)


def picture(pixels: Tensor, side: int = 0) -> Image.Image:
    """h w 3 in 0 to 1 -> picture, enlarged with clean edges while what is ``side`` long in it is small."""
    image = Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    factor = max(1, LEAST_SIDE // (side or max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def save_clip(frames: Tensor, fps: float, path: Path) -> None:
    """Writes an animated webp ``path`` and a contact sheet beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [picture(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, lossless=True)
    picture(contact_sheet(frames), max(frames.shape[1:3])).save(path.with_suffix(".png"))
