"""The measures of steadiness say what they are meant to say, on clips of which it is known."""

import cv2
import numpy as np
import pytest

from clip_measures import flow, neighbour_similarity, seen_in_both, sharpness, warp_error

SIDE, STEP = 96, 3


def texture(seed: int = 0) -> np.ndarray:
    """h w 3, smooth enough for its motion to be found."""
    noise = np.random.default_rng(seed).random((SIDE, 2 * SIDE, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 2)
    return (picture - picture.min()) / (picture.max() - picture.min())


def panning(frames: int = 5, seed: int = 0) -> np.ndarray:
    """A view that moves to the right over a texture: what is seen moves STEP pixels to the left each frame."""
    wide = texture(seed)
    return np.stack([wide[:, STEP * i : STEP * i + SIDE] for i in range(frames)])


def test_the_flow_of_a_panning_view_is_its_step() -> None:
    clip = panning()
    inner = flow(clip[0], clip[1])[10:-10, 10:-10]
    assert np.median(inner[..., 0]) == pytest.approx(-STEP, abs=0.1)
    assert np.median(inner[..., 1]) == pytest.approx(0, abs=0.1)


def test_a_clip_that_moves_with_its_source_has_no_warp_error_and_one_that_stands_still_has() -> None:
    source = panning()
    moving = warp_error(panning(seed=1), source)
    still = warp_error(np.repeat(panning(seed=1)[:1], 5, axis=0), source)
    assert moving < 0.5 and still > 10 * moving


def test_flicker_shows_by_its_size() -> None:
    """Every other frame brighter by a tenth: each differs by 0.1 from the one before."""
    source = panning()
    flicker = 0.8 * source + 0.1 * (np.arange(5) % 2)[:, None, None, None]
    assert warp_error(flicker, source) == pytest.approx(10, abs=0.5)


def test_what_was_out_of_sight_is_not_compared() -> None:
    source = panning(2)
    seen = seen_in_both(flow(source[1], source[0]), flow(source[0], source[1]))
    assert not seen[:, -STEP + 1 :].any(), "it came in at the right"
    assert seen[:, 5 : -STEP - 5].mean() > 0.95
    spoilt = source.copy()
    spoilt[1, :, -STEP + 1 :] = 0
    assert warp_error(spoilt, source) == pytest.approx(warp_error(source, source), abs=0.2)


def test_neighbours_of_a_still_clip_are_alike_and_of_noise_are_not() -> None:
    still = np.repeat(texture()[None], 3, axis=0)
    assert neighbour_similarity(still) == pytest.approx(1)
    assert abs(neighbour_similarity(np.random.default_rng(0).random((4, 50, 50, 3)))) < 0.05


def test_a_blurred_clip_is_less_sharp() -> None:
    clip = panning()
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in clip])
    assert sharpness(blurred) < 0.5 * sharpness(clip)
