"""The measures of steadiness say what they are meant to say, on clips of which it is known."""

import cv2
import numpy as np
import pytest

from magicvideo.benchmarks import clip_measures
from magicvideo.benchmarks.clip_measures import flow, neighbour_similarity, seen_in_both, sharpness, warp_error

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


def test_what_lowers_the_warp_error_without_steadying_a_clip_shows_in_its_sharpness() -> None:
    """Of a clip that flickers by grain, blurred frames and black ones differ less, but they are less sharp as well."""
    source = panning()
    grain = np.random.default_rng(0).normal(0, 0.1, source.shape).astype(np.float32)
    flickering = source + grain
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in flickering])
    black = np.zeros_like(source)
    errors = [warp_error(clip, source) for clip in (flickering, blurred, black)]
    sharp = [sharpness(clip) for clip in (flickering, blurred, black)]
    assert errors[0] > 2 * errors[1] > errors[2] == 0
    assert sharp[0] > 2 * sharp[1] > sharp[2] == 0


@pytest.mark.filterwarnings("error")
def test_likeness_of_frames_of_one_colour_is_not_a_number_rather_than_a_good_one() -> None:
    clip = panning()
    clip[2] = 0.3
    assert np.isnan(neighbour_similarity(clip)) and np.isnan(neighbour_similarity(np.zeros_like(clip)))


@pytest.mark.filterwarnings("error")
def test_a_source_in_which_nothing_stays_in_sight_gives_no_warp_error() -> None:
    source = np.stack([texture(), texture(5)])[:, :, :SIDE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_measures, "seen_in_both", lambda back, forth: np.zeros(back.shape[:2], bool))
        assert np.isnan(warp_error(source, source))


def test_warp_error_does_not_depend_on_how_bright_or_long_a_clip_is() -> None:
    """Errors scale with contrast and are means over frames, so clips of any length stand in one table."""
    source = panning(9)
    other = panning(9, seed=1)[::-1]
    assert warp_error(0.5 * other, source) == pytest.approx(0.5 * warp_error(other, source), rel=1e-4)
    assert warp_error(other + 0.2, source) == pytest.approx(warp_error(other, source), rel=1e-4)
    flicker = 0.8 * source + 0.1 * (np.arange(9) % 2)[:, None, None, None]
    assert warp_error(flicker[:5], source[:5]) == pytest.approx(warp_error(flicker, source), rel=0.05)


def test_a_ramp_over_all_shades_is_not_sharp_and_twice_the_contrast_is_four_times_as_sharp() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, SIDE)[:, None], (2, SIDE, SIDE, 3)).astype(np.float32)
    assert sharpness(ramp) < 0.05, "its variance is 83"
    assert sharpness(panning()) == pytest.approx(4 * sharpness(0.5 * panning()), rel=1e-3)
