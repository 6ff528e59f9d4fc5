"""Scenes: paths, speeds, and what is refused."""

import random

import pytest

from magicvideo.demo.world.sprite_scene import CUT, FRAME_RATES, FRAMES, SIDE, SPEED, Scene, draw_scene
from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS

COUPLES = [(subject, background) for subject in SUBJECTS for background in BACKGROUNDS]


def drawn(count: int = 1000) -> list[Scene]:
    generator = random.Random(1)
    return [draw_scene(generator, COUPLES) for _ in range(count)]


def test_a_second_is_as_far_at_every_frame_rate() -> None:
    for fps in FRAME_RATES:
        scene = Scene("car", "blue", "right", size=28, x=10, y=20, fps=fps)
        assert scene.centre(fps) == pytest.approx((10 + SPEED, 20))


@pytest.mark.parametrize(
    ("direction", "sign"), [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))]
)
def test_each_direction_goes_its_way(direction: str, sign: tuple[int, int]) -> None:
    scene = Scene("car", "blue", direction, size=28, x=30, y=30, fps=12)
    assert scene.centre(1) == pytest.approx((30 + 2 * sign[0], 30 + 2 * sign[1]))


def test_the_whole_path_is_inside_or_cut_no_more_at_its_end_than_at_its_start() -> None:
    for scene in drawn():
        for start, end in zip(scene.centre(0), scene.centre(FRAMES - 1), strict=True):
            cut = max(0.0, scene.size / 2 - min(start, SIDE - start))
            assert cut < CUT
            assert scene.size / 2 - cut - 1e-9 <= end <= SIDE - scene.size / 2 + cut + 1e-9, scene


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_reaches_the_edge_stays_there_and_little_of_it_is_cut(direction: str) -> None:
    scene = Scene("car", "blue", direction, size=28, x=32, y=32, fps=8)
    x, y = scene.centre(400)
    assert (x, y) == scene.centre(401)
    assert abs(x - 32) + abs(y - 32) == pytest.approx(32 - 14 + CUT)


def test_a_path_that_is_longer_than_the_picture_begins_at_its_edge_and_moves_at_once() -> None:
    generator = random.Random(1)
    scenes = [draw_scene(generator, COUPLES, frames=24, rates=(8.0,)) for _ in range(200)]
    for scene in (scene for scene in scenes if scene.direction):
        places = [sum(scene.centre(frame)) for frame in (0, 1, 15, 16, 23)]
        assert abs(places[1] - places[0]) == pytest.approx(SPEED / 8)
        assert abs(places[2] - places[0]) == pytest.approx(15 * SPEED / 8)
        assert places[3] == places[4] and abs(places[4] - places[0]) == pytest.approx(SIDE - 28 + 2 * CUT)


def test_a_frame_rate_is_told_by_the_steps_alone_not_by_where_a_thing_begins() -> None:
    begins: dict[float, dict[str | None, list[float]]] = {fps: {} for fps in FRAME_RATES}
    for scene in drawn(6000):
        begins[scene.fps].setdefault(scene.direction, []).append(scene.x)
    for direction in DIRECTIONS:
        means = [sum(of_rate[direction]) / len(of_rate[direction]) for of_rate in begins.values()]
        assert means == pytest.approx([means[0]] * len(means), abs=1.5), direction


def test_some_scenes_stand_still_and_every_direction_comes_up() -> None:
    directions = [scene.direction for scene in drawn()]
    assert set(directions) == {None, *DIRECTIONS}
    assert 0.05 < directions.count(None) / len(directions) < 0.2


@pytest.mark.parametrize(
    "wrong", [{"subject": "dog"}, {"background": "red"}, {"direction": "north"}, {"size": 0}, {"fps": 0.0}]
)
def test_a_scene_that_cannot_be_drawn_is_refused(wrong: dict[str, object]) -> None:
    sound = {"subject": "car", "background": "blue", "direction": None, "size": 28, "x": 30.0, "y": 30.0, "fps": 8.0}
    Scene(**sound)
    with pytest.raises(ValueError, match="found|no such"):
        Scene(**sound | wrong)
