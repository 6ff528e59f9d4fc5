"""Pictures of scenes, with plain sprites in place of the real ones."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from magicvideo.demo.world.sprite_painter import Painter, couples, load_sprites
from magicvideo.demo.world.sprite_scene import CUT, SIDE, TRAIL, TRAIL_GAP, Scene
from magicvideo.demo.world.subjects import BACKGROUNDS, SUBJECTS


@pytest.fixture(scope="module")
def painter() -> Painter:
    """Every sprite is a white square whose left quarter is red."""
    square = Image.new("RGBA", (128, 128), (255, 255, 255, 255))
    ImageDraw.Draw(square).rectangle((0, 0, 31, 127), fill=(255, 0, 0, 255))
    return Painter(dict.fromkeys(SUBJECTS, square))


def scene(direction: str | None, subject: str = "ball", **changes: float) -> Scene:
    return Scene(subject, "black", direction, **{"size": 28, "x": 32.0, "y": 32.0, "fps": 8.0} | changes)


def centroid(picture: np.ndarray) -> tuple[float, float]:
    """Of what is brighter than the brightest copy of the trail."""
    ys, xs = np.nonzero(picture.max(axis=-1) > 200)
    return xs.mean() + 0.5, ys.mean() + 0.5


def is_red(colour: np.ndarray) -> bool:
    return colour[0] > 200 and colour[1] < 60


def test_a_still_sprite_is_where_the_scene_says_and_leaves_the_background_alone(painter: Painter) -> None:
    picture = painter.frame(scene(None), 3)
    assert picture.shape == (SIDE, SIDE, 3)
    assert centroid(picture) == pytest.approx((32, 32), abs=0.3)
    shown = np.any(picture != np.array(BACKGROUNDS["black"]), axis=-1)
    assert shown.sum() == 28 * 28


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
def test_a_moving_sprite_leaves_fading_copies_behind_it_and_none_before(painter: Painter, direction: str) -> None:
    moving = scene(direction)
    picture = painter.frame(moving, 0).astype(int)
    dx, dy = (np.array(moving.centre(8)) - moving.centre(0)) / 24
    edge = 14 + TRAIL_GAP / 2
    ahead, behind = ((round(32 + s * edge * dx), round(32 + s * edge * dy)) for s in (1, -1))
    background = np.array(BACKGROUNDS["black"])
    assert (picture[ahead[1], ahead[0]] == background).all()
    steps = [picture[round(behind[1] - n * TRAIL_GAP * dy), round(behind[0] - n * TRAIL_GAP * dx)] for n in range(3)]
    brightness = [int((step - background).sum()) for step in steps]
    assert brightness == sorted(brightness, reverse=True) and brightness[-1] > 10
    assert len(TRAIL) == 3


def test_a_clip_moves_by_three_pixels_a_frame_at_eight_frames_a_second(painter: Painter) -> None:
    clip = painter.clip(scene("right", x=20.0), 5)
    places = [centroid(frame)[0] for frame in clip]
    assert np.diff(places) == pytest.approx([3.0] * 4, abs=0.01)


def test_half_pixels_show(painter: Painter) -> None:
    whole, half = (painter.frame(scene(None, x=x), 0) for x in (32.0, 32.5))
    assert centroid(half)[0] != centroid(whole)[0] or (whole != half).any()


def test_what_looks_left_as_drawn_is_mirrored_when_it_moves_right(painter: Painter) -> None:
    assert SUBJECTS["car"].faces == "left" and SUBJECTS["rocket"].faces == "right" and SUBJECTS["ball"].faces is None
    shown = {}
    for subject in ("car", "rocket", "ball"):
        for direction in ("left", "right"):
            picture = painter.frame(scene(direction, subject), 0)
            shown[subject, direction] = "left" if is_red(picture[32, 20]) else "right"
            assert is_red(picture[32, 20]) != is_red(picture[32, 44])
    assert shown["car", "left"] == "left" and shown["car", "right"] == "right"
    assert shown["rocket", "left"] == "right" and shown["rocket", "right"] == "left"
    assert shown["ball", "left"] == shown["ball", "right"] == "left"


def test_a_sprite_that_leaves_the_frame_is_cut_and_stops_there(painter: Painter) -> None:
    whole, cut, far = (painter.frame(scene(None, x=x), 0) for x in (32.0, 14.0 - CUT, -100.0))
    shown = 28 - int(CUT)
    assert np.array_equal(cut[:, :shown], whole[:, 46 - shown : 46])
    assert (cut[:, shown:] == np.array(BACKGROUNDS["black"])).all()
    assert np.array_equal(far, cut)


def test_like_colours_are_no_couple(painter: Painter) -> None:
    chosen = couples(painter.sprites)
    assert ("ball", "black") in chosen and ("ball", "white") not in chosen


def test_the_same_seed_draws_the_same_still(painter: Painter) -> None:
    one, other, third = (painter.still(random.Random(seed)) for seed in (1, 1, 2))
    assert one.scene == other.scene and (one.picture == other.picture).all()
    assert one.scene != third.scene


def test_missing_sprites_are_named_with_the_command_that_draws_them(tmp_path: Path, painter: Painter) -> None:
    for name in SUBJECTS.keys() - {"star", "crab"}:
        painter.sprites[name].save(tmp_path / f"{name}.png")
    with pytest.raises(FileNotFoundError, match="star, crab in .*draw_sprites.py"):
        load_sprites(tmp_path)
