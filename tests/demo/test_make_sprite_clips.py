"""Captioned clips of moving sprites, as files and as latents."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from magicvideo.demo.model.small_autoencoder import SmallAutoencoder
from magicvideo.demo.train.make_sprite_clips import sprite_clips, write_folder, write_latents
from magicvideo.demo.world.sprite_painter import Painter
from magicvideo.demo.world.sprite_scene import FRAMES as FRAMES_OF_SCENE
from magicvideo.demo.world.subjects import SUBJECTS

COUNT, FRAMES, SEED = 6, 5, 4


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(dict.fromkeys(SUBJECTS, Image.new("RGBA", (128, 128), (120, 0, 0, 255))))


def test_a_folder_holds_each_clip_as_it_was_drawn_with_its_caption_and_rate(painter: Painter, tmp_path: Path) -> None:
    clips = list(sprite_clips(painter, COUNT, SEED, FRAMES))
    assert write_folder(tmp_path, iter(clips)) == COUNT
    assert len(list(tmp_path.iterdir())) == 2 * COUNT
    rates = set()
    for number, (scene, text, frames) in enumerate(clips, start=1):
        with av.open(str(tmp_path / f"{number:05}.mkv")) as container:
            read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert container.streams.video[0].average_rate == scene.fps
        assert np.array_equal(np.stack(read), frames)
        assert (tmp_path / f"{number:05}.txt").read_text(encoding="utf-8").strip() == text
        rates.add(scene.fps)
    assert len(rates) > 1


def test_latents_are_those_of_the_frames_with_rates_and_captions(painter: Painter, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = SmallAutoencoder().requires_grad_(False), tmp_path / "clips.safetensors"
    clips = list(sprite_clips(painter, COUNT, SEED, FRAMES))
    assert write_latents(path, network, iter(clips)) == COUNT
    with safe_open(path, "pt") as file:
        latents, fps = file.get_tensor("latents"), file.get_tensor("fps")
        captions = json.loads(file.metadata()["captions"])
    assert latents.shape == (COUNT, FRAMES, 4, 8, 8) and latents.dtype == torch.float16
    assert captions == [text for _, text, _ in clips] and fps.tolist() == [scene.fps for scene, _, _ in clips]
    last = torch.from_numpy(clips[-1][2][-1]).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(latents[-1, -1], network.encode(last)[0].half(), atol=1e-3, rtol=1e-2)


def test_frame_rates_are_those_that_were_asked_for_and_named_twice_they_come_twice_as_often(painter: Painter) -> None:
    rates = [scene.fps for scene, _, _ in sprite_clips(painter, 300, SEED, 1, (8.0, 8.0, 16.0))]
    assert set(rates) == {8.0, 16.0} and rates.count(8.0) == pytest.approx(200, abs=30)


def test_the_same_seed_makes_the_same_clips(painter: Painter) -> None:
    (one,), (other,), (third,) = (list(sprite_clips(painter, 1, seed)) for seed in (1, 1, 2))
    assert one[:2] == other[:2] and np.array_equal(one[2], other[2])
    assert one[0] != third[0]


def test_a_longer_clip_begins_like_the_short_one(painter: Painter) -> None:
    (short,), (long,) = (list(sprite_clips(painter, 1, 5, frames)) for frames in (FRAMES_OF_SCENE, 40))
    assert short[:2] == long[:2] and len(long[2]) == 40
    assert np.array_equal(short[2], long[2][:FRAMES_OF_SCENE])
