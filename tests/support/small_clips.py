"""Small video files, made as the tests need them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(path: Path, frames: int = 12, shift: int = 3) -> None:
    """64x64 pixels, 12 frames a second: a bright square that moves to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(12))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for place in range(frames):
            picture = np.full((64, 64, 3), 60, np.uint8)
            picture[20:40, 2 + shift * place : 22 + shift * place] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
