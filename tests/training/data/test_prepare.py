"""What is learnt from and what is held out of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_clips import write_clip

from fake_encoders import FakeEncoders
from made_clips import greys, write_animation, write_picture, write_video
from magicvideo.adaptor_unet.training.data.clip_files import find_clips
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_clip import TrainingClips
from magicvideo.adaptor_unet.training.data.prepare import (
    clips_of_folder,
    clips_of_shards,
    fitting_size,
    held_out,
    settings_of_shards,
)
from magicvideo.adaptor_unet.training.data.shards import write_shards

DATA = DataSettings(frames=4, width=64, height=64, draws_per_clip=2)


def folder_of(tmp_path: Path, count: int) -> Path:
    for place in range(count):
        write_clip(tmp_path / "clips" / f"{place}.mp4", frames=8, shift=place)
        (tmp_path / "clips" / f"{place}.txt").write_text(f"clip {place}", encoding="utf-8")
    return tmp_path / "clips"


def prepared(folder: Path, validation_clips: int, data: DataSettings = DATA) -> TrainingClips:
    cache = folder.parent / "cache"
    return clips_of_folder(folder, data, validation_clips, cache, FakeEncoders, "weights", lambda *told: None)


def captions(clips: TrainingClips) -> tuple[set[str], set[str]]:
    train = {clips.train[item].caption for item in range(len(clips.train))}
    return train, {clip.caption for clip in clips.held_out}


@pytest.mark.parametrize(("asked", "held"), [(4, 2), (1, 1)])
def test_held_out_clips_are_not_learnt_from_and_at_most_one_in_five(asked: int, held: int, tmp_path: Path) -> None:
    train, apart = captions(prepared(folder_of(tmp_path, 10), asked))
    assert len(apart) == held
    assert not train & apart
    assert train | apart == {f"clip {place}" for place in range(10)}


def test_the_same_clips_are_held_out_at_every_start_and_when_others_come(tmp_path: Path) -> None:
    found = find_clips(folder_of(tmp_path, 10))
    first = {clip.path.name for clip in held_out(found, 2)[0]}
    assert first == {clip.path.name for clip in held_out(found[::-1], 2)[0]}
    fewer = [clip for clip in found if clip.path.name in first or clip.path.name < "5"]
    assert first == {clip.path.name for clip in held_out(fewer, 2)[0]}


def test_with_few_clips_the_training_clips_are_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clips = prepared(folder_of(tmp_path, 3), 2)
    train, apart = captions(clips)
    assert clips.clip_count == 3, "which is not that of sub-clips"
    assert train == {"clip 0", "clip 1", "clip 2"}
    assert apart and apart <= train
    assert "too few clips" in caplog.text


def test_asked_for_none_all_are_learnt_from(tmp_path: Path) -> None:
    train, apart = captions(prepared(folder_of(tmp_path, 6), 0))
    assert len(train) == 6
    assert len(apart) == 1


def test_when_the_held_out_clip_is_broken_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path, 5)
    ((clip,), _) = held_out(find_clips(folder), 1)
    clip.path.write_bytes(b"no video")
    train, apart = captions(prepared(folder, 1))
    assert len(train) == 4 and apart <= train
    assert "were to be held out" in caplog.text


def folder_with_stills(tmp_path: Path, clips: int, stills: int) -> Path:
    """Pictures that come before the clips by their names."""
    folder = folder_of(tmp_path, clips)
    for place in range(stills):
        write_picture(folder / f"0 view {place}.png", place)
    return folder


def test_stills_take_no_places_of_held_out_clips(tmp_path: Path) -> None:
    clips = prepared(folder_with_stills(tmp_path, 5, 21), 4)
    assert {len(clip.latents) for clip in clips.held_out} == {4}
    assert len({clip.caption for clip in clips.held_out}) == 1, "of five moving clips one"
    assert clips.clip_count == 21 + 4
    assert len(clips.train) == 21 + 4 * 2


def test_stills_that_are_off_are_not_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_with_stills(tmp_path, 5, 21)  # of all these, chance would pick four stills
    clips = prepared(folder, 4, replace(DATA, stills=False))
    train, apart = captions(clips)
    assert (len(train), len(apart)) == (4, 1) and not train & apart
    assert {len(clip.latents) for clip in clips.held_out} == {4}
    assert "were to be held out" not in caplog.text


def test_nothing_but_stills_that_are_off_is_refused_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There are no clips to train on: 6 stills, and stills are off"):
        prepared(folder_with_stills(tmp_path, 0, 6), 4, replace(DATA, stills=False))


def test_where_none_is_held_out_clips_that_move_are_looked_at(tmp_path: Path) -> None:
    clips = prepared(folder_with_stills(tmp_path, 2, 3), 2)
    assert [len(clip.latents) for clip in clips.held_out] == [4, 4]
    still = prepared(folder_with_stills(tmp_path / "stills", 0, 6), 2)
    assert [len(clip.latents) for clip in still.held_out] == [1] and len(still.train) == 5


def test_asked_for_none_nobody_is_told_of_too_few(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    prepared(folder_of(tmp_path, 2), 0)
    assert "too few" not in caplog.text


def test_shards_hold_their_last_clips_out(tmp_path: Path) -> None:
    clips = prepared(folder_of(tmp_path, 6), 0)
    write_shards(clips.train, tmp_path / "shards", clips.empty_text, items_per_shard=5)
    sharded = clips_of_shards(tmp_path / "shards", 2)
    assert sharded.train.groups == (5, 5)
    assert len(sharded.held_out) == 2
    items = [sharded.train[item] for item in range(10)] + list(sharded.held_out)
    assert all(torch.equal(item.latents, clips.train[place].latents) for place, item in enumerate(items))
    assert torch.equal(sharded.empty_text, clips.empty_text)


def sharded(clips: TrainingClips, folder: Path, validation_clips: int, per_shard: int = 3) -> TrainingClips:
    """The clips written into shards, and read again."""
    write_shards(clips.train, folder, clips.empty_text, per_shard, clips.train.sources, DATA)
    return clips_of_shards(folder, validation_clips)


def test_shards_hold_whole_clips_out_and_no_stills(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 10)
    write_picture(folder / "a still at the end.png")
    clips = sharded(prepared(folder, 0), tmp_path / "shards", 4)
    train, apart = captions(clips)
    assert apart == {"clip 8", "clip 9"} and not train & apart and len(train) == 8 + 1
    assert {len(clip.latents) for clip in clips.held_out} == {4} and len(clips.held_out) == 4
    assert clips.train.groups == (3, 3, 3, 3, 3, 1, 1) and clips.clip_count == 9
    again = clips_of_shards(tmp_path / "shards", 4)
    assert again.train.content == clips.train.content != clips_of_shards(tmp_path / "shards", 1).train.content


def test_of_few_clips_in_shards_none_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clips = sharded(prepared(folder_of(tmp_path, 3), 0), tmp_path / "shards", 2)
    assert (clips.clip_count, len(clips.train), len(clips.held_out)) == (3, 6, 2)
    assert "too few clips" in caplog.text


def test_shards_that_do_not_tell_whose_items_are_whose_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = prepared(folder_of(tmp_path, 5), 0)
    write_shards(clips.train, tmp_path / "shards", clips.empty_text)
    assert len(clips_of_shards(tmp_path / "shards", 1).held_out) == 1
    assert "does not tell which of its items are of one clip" in caplog.text


def test_a_run_has_the_settings_that_its_shards_were_written_with(tmp_path: Path) -> None:
    sharded(prepared(folder_of(tmp_path, 2), 0), tmp_path / "shards", 1)
    found = settings_of_shards(tmp_path / "shards", DataSettings(seed=5), ())
    assert found == replace(DATA, seed=5)
    assert settings_of_shards(tmp_path / "shards", replace(DATA, flip=True), {"frames", "width"}) == DATA
    for name, value in {"frames": 16, "flip": True, "caption_prefix": "waves"}.items():
        with pytest.raises(
            ValueError, match=f"{name} is {value!r}, but the clips in .*shards are encoded already, with"
        ):
            settings_of_shards(tmp_path / "shards", replace(DATA, **{name: value}), {name})


def test_shards_that_tell_no_settings_are_looked_at(tmp_path: Path) -> None:
    clips = prepared(folder_with_stills(tmp_path, 1, 3), 0)
    write_shards(clips.train, tmp_path / "shards", clips.empty_text)
    expected = DataSettings(frames=4, width=64, height=64)
    assert settings_of_shards(tmp_path / "shards", DataSettings(), ()) == expected
    with pytest.raises(ValueError, match="flip is True, but the clips in .*shards are encoded already: leave it out"):
        settings_of_shards(tmp_path / "shards", DataSettings(flip=True), {"flip"})
    with pytest.raises(ValueError, match="frames is 16, but .* are encoded already, with 4: leave it out"):
        settings_of_shards(tmp_path / "shards", DataSettings(), {"frames"})


def test_the_size_fits_the_smallest_clip_and_stills_have_no_say(tmp_path: Path) -> None:
    write_video(tmp_path / "wide.mp4", greys(2, (200, 144)))
    write_animation(tmp_path / "tall.webp", 2, 100, (136, 300))
    write_picture(tmp_path / "still.png", size=(16, 16))
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    assert fitting_size(tmp_path, 512) == (128, tmp_path / "tall.webp")
    assert fitting_size(tmp_path, 128) == (128, None)
    write_video(tmp_path / "tiny.mp4", greys(2, (60, 50)))
    assert fitting_size(tmp_path, 512) == (128, tmp_path / "tall.webp"), "one small clip does not make all small"
    write_video(tmp_path / "small" / "tiny.mp4", greys(2, (60, 50)))
    assert fitting_size(tmp_path / "small", 512) == (48, tmp_path / "small" / "tiny.mp4")
    write_picture(tmp_path / "stills" / "still.png", size=(80, 90))
    assert fitting_size(tmp_path / "stills", 512) == (64, tmp_path / "stills" / "still.png")
