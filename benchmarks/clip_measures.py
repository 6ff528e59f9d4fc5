"""How steady a clip is, measured on its pictures.

Axes: f frames, h height, w width, 3 colours; pictures are floats in 0..1.
"""

import cv2
import numpy as np

# Optical flow of smaller pictures is found on enlarged ones.
LEAST_SIDE = 256


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each pixel of the first picture, how far it lies in the second, in pixels to the right and down: h w 2.

    Dense inverse search (Kroeger et al. 2016) as OpenCV has it.
    """
    height, width = first.shape[:2]
    factor = max(1, -(-LEAST_SIDE // min(height, width)))
    size = (width * factor, height * factor)
    greys = [
        cv2.resize(cv2.cvtColor((x * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY), size) for x in (first, second)
    ]
    found = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*greys, None)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA) / factor


def fetched(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The picture's values where the pixels lie that have moved by ``at``: h w ..., h w 2 -> h w ..."""
    rows, columns = np.indices(at.shape[:2], dtype=np.float32)
    places = at + np.stack([columns, rows], axis=-1)
    return cv2.remap(picture.astype(np.float32), places.astype(np.float32), None, cv2.INTER_LINEAR)


def seen_in_both(back: np.ndarray, forth: np.ndarray) -> np.ndarray:
    """Where a pixel of the later frame was in sight before: there and back again comes home (Sundaram et al. 2010)."""
    returned = fetched(forth, back)
    apart = ((back + returned) ** 2).sum(-1)
    rows, columns = np.indices(apart.shape)
    inside = (0 <= columns + back[..., 0]) & (columns + back[..., 0] <= apart.shape[1] - 1)
    inside &= (0 <= rows + back[..., 1]) & (rows + back[..., 1] <= apart.shape[0] - 1)
    return inside & (apart < 0.01 * ((back**2).sum(-1) + (returned**2).sum(-1)) + 0.5)


def warp_error(frames: np.ndarray, source: np.ndarray) -> float:
    """Mean difference, times 100, of each frame from the one before moved as the source moves; f h w 3 both.

    Where the source shows what was not in sight before, nothing is compared; not a number if that is all of it.  A
    clip of one colour has no error at all, and blur lessens it: both show in ``sharpness``.
    """
    errors = []
    for i in range(len(frames) - 1):
        back, forth = flow(source[i + 1], source[i]), flow(source[i], source[i + 1])
        seen = seen_in_both(back, forth)
        if seen.any():
            errors.append(np.abs(frames[i + 1] - fetched(frames[i], back))[seen].mean())
    return 100 * float(np.mean(errors)) if errors else float("nan")


def neighbour_similarity(frames: np.ndarray) -> float:
    """Mean correlation of the pixels of each frame and the next; not a number where a frame is of one value alone.

    A still clip reaches 1 whatever its source does, so read it beside the warp error.
    """
    flat = frames.reshape(len(frames), -1).astype(np.float64)
    if not flat.std(axis=1).all():
        return float("nan")
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(flat[:-1], flat[1:], strict=True)]))


def sharpness(frames: np.ndarray) -> float:
    """Mean variance, times 1000, of the Laplacian of the grey pictures: what only blurs is not steady."""
    greys = [cv2.cvtColor(frame.astype(np.float32), cv2.COLOR_RGB2GRAY) for frame in frames]
    return 1000 * float(np.mean([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in greys]))
