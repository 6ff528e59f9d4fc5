"""The demo model's videos, each of whose pixels is a square.  Axes: f frames, h height, w width, c colours."""

from collections.abc import Sequence

import numpy as np
from einops import reduce

SHOWN = 64  # pixels of a side that the model draws


def as_drawn(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Enlarged frames, f of h w c -> f h w c of the size that the model drew."""
    return reduce(np.stack(frames).astype(float), "f (h y) (w x) c -> f h w c", "mean", h=SHOWN, w=SHOWN)
