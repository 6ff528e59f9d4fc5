"""Cuts in a clip are found, and no sub-clip crosses one; interlaced pictures are read as one."""

from pathlib import Path
from random import Random

import av
import numpy
import pytest

from fake_encoders import FakeEncoders
from made_clips import greys, numbers, write_animation, write_picture, write_video
from magicvideo.adaptor_unet.training.data.clip_files import ClipFile, find_clips
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.frame_source import open_clip
from magicvideo.adaptor_unet.training.data.latent_cache import build_cache, framed_sub_clips
from magicvideo.adaptor_unet.training.data.shot_cuts import shots_of
from magicvideo.adaptor_unet.training.data.sub_clips import UnfitClipError, draw_sub_clips, draw_within_shots
from magicvideo.adaptor_unet.training.data.video_file import VideoFile

# Two shots, of 6 and of 12 frames; a grey that changes by little, then by much.
DARK, BRIGHT = greys(6), greys(40)[28:]
SETTINGS = DataSettings(frames=4, width=16, height=16, draws_per_clip=6, fps_min=0)


def unseen() -> None:
    """Nobody looks on."""


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi", "cut.gif"])
def test_a_cut_is_found_and_motion_is_none(name: str, tmp_path: Path) -> None:
    if name.endswith("gif"):
        write_animation(tmp_path / name, 6, 100)
        assert open_clip(ClipFile(tmp_path / name, "", "video"), 8).cuts(unseen) == ()
        return
    assert VideoFile(write_video(tmp_path / name, [*DARK, *BRIGHT])).cuts(unseen) == (6,)
    assert VideoFile(write_video(tmp_path / f"no {name}", greys(18))).cuts(unseen) == ()


def test_a_folder_of_pictures_has_cuts_too(tmp_path: Path) -> None:
    for place, number in enumerate((0, 1, 2, 30, 31)):
        write_picture(tmp_path / f"{place}.png", number)
    assert open_clip(ClipFile(tmp_path, "", "pictures"), 8).cuts(unseen) == (3,)


def test_sub_clips_lie_in_one_shot_and_more_of_them_in_the_longer_one(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "cut.mp4", [*DARK, *BRIGHT]))
    shots = shots_of(source.times, source.end, source.cuts(unseen))
    drawn = framed_sub_clips(ClipFile(source.path, "", "video"), shots, SETTINGS, Random(0))
    found = [numbers(list(source.read(sub_clip.times))) for sub_clip, _ in drawn]
    assert all(max(shown) < 6 or min(shown) >= 28 for shown in found)
    assert 0 < sum(max(shown) < 6 for shown in found) < sum(min(shown) >= 28 for shown in found)


def test_a_clip_of_one_shot_is_drawn_from_as_ever() -> None:
    times = [place / 10 for place in range(30)]
    one = list(draw_within_shots(shots_of(times, 3.0, ()), SETTINGS, Random(5)))
    assert one == list(draw_sub_clips(times, 3.0, SETTINGS, Random(5)))


def test_shots_that_are_too_short_are_left_out_and_named_when_all_are() -> None:
    times = [place / 10 for place in range(12)]
    drawn = draw_within_shots(shots_of(times, 1.2, (2, 4)), SETTINGS, Random(0))
    assert all(sub_clip.times[0] >= 0.4 for sub_clip in drawn)
    with pytest.raises(UnfitClipError, match="has 4 shots, of which the longest has 3 frames; a sub-clip needs 4"):
        list(draw_within_shots(shots_of(times, 1.2, (3, 6, 9)), SETTINGS, Random(0)))


def test_the_cache_heeds_cuts_unless_it_is_told_not_to(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.mp4", [*DARK[:3], *BRIGHT[:3]])
    told: list[str] = []

    def built(within_shots: bool) -> object:
        settings = DataSettings(frames=4, width=16, height=16, fps_min=0, within_shots=within_shots)
        clips = find_clips(tmp_path / "clips")
        return build_cache(clips, settings, tmp_path / "cache", "x", FakeEncoders, lambda *row: told.append(row[2]))

    assert len(built(False)) == 3 and "looking for cuts in a.mp4" not in told
    with pytest.raises(ValueError, match="a.mp4 has 2 shots, of which the longest has 3 frames"):
        built(True)
    assert "looking for cuts in a.mp4" in told


def test_an_interlaced_picture_has_no_combs(tmp_path: Path) -> None:
    """The lines of its two halves are of two moments, between which the square has moved."""
    path = tmp_path / "television.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.bit_rate, stream.options = "yuv420p", 4_000_000, {"flags": "+ildct+ilme"}
        for place in range(4):
            picture = numpy.full((64, 64, 3), 60, numpy.uint8)
            picture[::2, 8 * place : 8 * place + 24] = 250
            picture[1::2, 8 * place + 4 : 8 * place + 28] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    source = VideoFile(path)
    for frame in source.read(source.times):
        lines = frame.int()
        assert (2 * lines[1:-1] - lines[:-2] - lines[2:]).abs().float().mean() < 1
        assert lines.max() > 200 and lines.min() < 80


@pytest.mark.parametrize("size", [(1000, 3), (3000, 1), (1, 3000), (8, 2048)])
def test_pictures_that_are_far_too_long_are_looked_through_like_others(size: tuple[int, int], tmp_path: Path) -> None:
    for place, number in enumerate((0, 1, 2, 30, 31)):
        write_picture(tmp_path / f"{place}.png", number, size)
    assert open_clip(ClipFile(tmp_path, "", "pictures"), 8).cuts(unseen) == (3,)


def test_the_look_for_cuts_can_be_stopped_on_its_way(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "long.mp4", greys(40) * 6))
    looks = []

    def looking() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.cuts(looking)
    assert len(looks) == 2
