"""The rule by which the demo's clips are judged, on clips whose motion is known."""

import random

import numpy as np
import pytest
from PIL import Image

from magicvideo.demo.measure.motion_rule import (
    Drift,
    Way,
    change_of_thing,
    drift,
    places,
    speed,
    turned_back,
    way,
    whole,
    worst_step,
)
from magicvideo.demo.world.sprite_painter import Painter
from magicvideo.demo.world.sprite_scene import FRAMES, SIDE, Scene
from magicvideo.demo.world.subjects import DIRECTIONS, SUBJECTS


@pytest.fixture(scope="module")
def painter() -> Painter:
    """Subjects of several colours, one above the other."""
    sprite = Image.new("RGBA", (128, 128), (120, 0, 0, 255))
    sprite.paste((20, 20, 20, 255), (0, 64, 128, 128))
    return Painter(dict.fromkeys(SUBJECTS, sprite))


def scene(direction: str | None, x: float = 32, y: float = 32, fps: float = 16) -> Scene:
    return Scene("car", "yellow", direction, 24, x, y, fps)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_sprite_goes_the_way_it_was_drawn(painter: Painter, direction: str) -> None:
    dx, dy = DIRECTIONS[direction]
    found = way(painter.clip(scene(direction, 32 - 11 * dx, 32 - 11 * dy)))
    assert found.along(direction) == pytest.approx(22.5, abs=1.5)
    assert found.across(direction) < 0.5 and found.scatter < 1
    assert [name for name in DIRECTIONS if found.is_right(name)] == [direction]


def test_a_sprite_that_stands_goes_no_way(painter: Painter) -> None:
    found = way(painter.clip(scene(None)))
    assert abs(found.x) < 0.5 and abs(found.y) < 0.5
    assert not any(found.is_right(name) for name in DIRECTIONS)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_sprite_that_comes_in_at_an_edge_is_as_fast_as_it_was_drawn(painter: Painter, direction: str) -> None:
    dx, dy = DIRECTIONS[direction]
    frames = painter.clip(scene(direction, 32 - 25 * dx, 32 - 25 * dy))
    assert not whole(frames)[0] and whole(frames)[-1]
    assert 15 * speed(frames, direction) == pytest.approx(22.5, abs=0.5)
    assert way(frames).along(direction) < 21  # a part that is cut off hides some of the way
    assert speed(frames[:4], direction) is None


def test_frames_in_disorder_are_no_way(painter: Painter) -> None:
    frames = painter.clip(scene("right", 20))
    order = list(range(FRAMES))
    random.Random(3).shuffle(order)
    assert way(frames[order]).scatter > 4 > 1 > way(frames).scatter


@pytest.mark.parametrize(
    ("x", "y", "right"), [(5.1, 0, True), (4.9, 0, False), (12, 5.9, True), (12, 6.1, False), (12, -6.1, False)]
)
def test_right_is_more_than_five_pixels_and_twice_the_drift(x: float, y: float, right: bool) -> None:
    assert Way(x, y, 0).is_right("right") is right
    assert not Way(x, y, 0).is_right("left")


def test_an_empty_clip_has_no_way_and_a_frame_that_shows_nothing_no_place(painter: Painter) -> None:
    frames = painter.clip(scene("right", 20))
    frames[3] = frames[3, 0, 0]
    assert np.isnan(places(frames)[3]).all() and np.isfinite(places(frames)[4]).all()
    assert way(frames) is not None
    assert way(np.full((FRAMES, SIDE, SIDE, 3), 90, np.uint8)) is None


def test_the_thing_stays_itself_wherever_it_goes_and_another_one_does_not(painter: Painter) -> None:
    frames = painter.clip(scene("up", 32, 44))
    assert change_of_thing(frames).max() < 0.15
    other = frames.copy()
    other[5] = np.where((frames[5] == frames[5, 0, 0]).all(-1, keepdims=True), frames[5], 255 - frames[5])
    other[6] = frames[6, 0, 0]
    changed = change_of_thing(other)
    assert changed[5] > 0.5 and changed[6] == 1 and changed[4] < 0.15


def test_how_far_a_thing_turns_back_is_told(painter: Painter) -> None:
    frames = painter.clip(scene("right", 20))
    assert turned_back(frames, "right") < 0.5
    assert turned_back(frames, "left") == pytest.approx(22.5, abs=1.5)
    there_and_back = np.concatenate([frames, frames[:7:-1]])
    assert turned_back(there_and_back, "right") == pytest.approx(22.5 * 7 / 15, abs=1.5)


def test_a_thing_that_moves_evenly_has_no_step_that_is_off(painter: Painter) -> None:
    assert worst_step(painter.clip(scene("right", 20))) < 1


@pytest.mark.parametrize("pixels", [6, 12])
def test_a_jump_is_as_far_off_as_it_is_wide(painter: Painter, pixels: int) -> None:
    before, after = painter.clip(scene("right", 20)), painter.clip(scene("right", 20, 32 - pixels))
    jumped = np.concatenate([before[:9], after[9:]])
    assert worst_step(jumped) == pytest.approx(pixels, abs=0.7)


def test_a_thing_that_is_gone_for_a_frame_has_jumped(painter: Painter) -> None:
    frames = painter.clip(scene("right", 20)).copy()
    frames[5] = frames[5, 0, 0]
    assert worst_step(frames) == float("inf")


def test_a_clip_that_stays_as_it_is_has_not_faded(painter: Painter) -> None:
    frames = painter.clip(scene("right", 20))
    assert drift(np.concatenate([frames, frames])) == Drift(1.0, 0.0)


def test_a_blurred_or_tinted_end_is_told(painter: Painter) -> None:
    frames = painter.clip(scene("right", 20))
    blurred = (frames.astype(float) + np.roll(frames, 1, 1) + np.roll(frames, 2, 1) + np.roll(frames, 3, 1)) / 4
    assert drift(np.concatenate([frames, blurred.astype(np.uint8)])).sharpness < 0.8
    assert drift(np.concatenate([frames, 255 - frames])).colours > 0.5
