"""The cache: what it makes, what it finds again, what it makes anew, what it skips."""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fake_encoders import FakeEncoders, never
from made_clips import damage, greys, write_animation, write_picture, write_sound, write_video
from magicvideo.adaptor_unet.training.data import latent_cache
from magicvideo.adaptor_unet.training.data.cache_files import read_metadata
from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError, find_clips
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_cache import FolderClips, build_cache
from magicvideo.adaptor_unet.training.data.latent_clip import ClipSet, LatentClip

SETTINGS = DataSettings(frames=4, width=64, height=48, draws_per_clip=3)


def quiet(done: int, total: int, name: str) -> None:
    pass


def build(
    folder: Path, settings: DataSettings = SETTINGS, encoders: Callable = FakeEncoders, weights: str = "v1"
) -> FolderClips:
    return build_cache(find_clips(folder), settings, folder.parent / "cache", weights, encoders, quiet)


def in_memory(clips: FolderClips) -> list[LatentClip]:
    return [clips[place] for place in range(len(clips))]


def same(one: ClipSet, other: ClipSet | list[LatentClip]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.latents, b.latents) and torch.equal(a.text, b.text) and (a.fps, a.caption) == (b.fps, b.caption)
        for a, b in ((one[place], other[place]) for place in range(len(one)))
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, a GIF, a WebP, pictures of one clip and a still, with some captions."""
    clips = tmp_path / "my clips 고양이"
    write_video(clips / "a wave.mp4", greys(30))
    (clips / "a wave.txt").write_text("a wave")
    write_video(clips / "b.mkv", greys(12), fps=8)
    write_animation(clips / "c.gif", 8, 100)
    write_animation(clips / "d.webp", 8, 100)
    for number in range(8):
        write_picture(clips / "e" / f"{number}.png", number)
    write_picture(clips / "f.png", 3)
    (clips / "caption.txt").write_text("things")
    return clips


def test_every_clip_gives_its_sub_clips_with_rate_text_and_caption(folder: Path) -> None:
    clips = build(folder)
    items = [clips[place] for place in range(len(clips))]
    assert clips.groups == (len(items),) and not clips.skipped
    counts = [len(clip.fps) for clip in clips.clips]
    assert counts[0] == 3 and counts[4] == 1 and all(1 <= count <= 3 for count in counts), "each sub-clip once"
    for item in items:
        still = item.fps == 0
        assert item.latents.shape == (1 if still else 4, 4, 6, 8) and item.latents.dtype == torch.float16
        assert item.text.shape == (4, 8) and item.text.dtype == torch.float32
    assert [item.caption for item in items[:3]] == ["a wave"] * 3
    assert {item.caption for item in items[3:]} == {"things"}
    assert torch.equal(items[0].text, FakeEncoders().text("a wave"))
    assert torch.equal(clips.empty_text, FakeEncoders().text(""))
    with pytest.raises(IndexError):
        clips[len(clips)]


def test_latents_are_those_of_the_frames_at_the_rate_that_is_told(folder: Path) -> None:
    clips = build(folder)
    for place in range(3):
        item = clips[place]
        shown = (item.latents[:, 0].float().mean((1, 2)) + 2) / 4 * 255
        numbers = ((shown - 10) / 6).round().int().tolist()
        steps = {later - earlier for earlier, later in zip(numbers, numbers[1:], strict=False)}
        assert len(steps) == 1 and item.fps == pytest.approx(10 / steps.pop())


def test_the_encoders_are_loaded_once(folder: Path) -> None:
    loaded = []
    build(folder, encoders=lambda: loaded.append(FakeEncoders()) or loaded[-1])
    assert len(loaded) == 1


def test_a_second_start_needs_no_encoder_and_gives_the_same(folder: Path) -> None:
    assert same(build(folder), build(folder, encoders=never))


def test_the_sub_clips_are_the_same_on_every_machine_and_under_every_name(folder: Path, tmp_path: Path) -> None:
    first = build(folder)
    moved = tmp_path / "elsewhere" / "x"
    shutil.copytree(folder, moved)
    assert same(first, build(moved))
    (moved / "a wave.mp4").rename(moved / "a2.mp4")
    (moved / "a wave.txt").rename(moved / "a2.txt")
    assert same(first, build(moved, encoders=never))


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 5},
        {"width": 48},
        {"height": 64},
        {"bucket_sizes": True, "bucket_step": 8, "width": 32},
        {"crop": "random", "height": 40},
        {"flip": True},
        {"fps_min": 6.0},
        {"fps_max": 6.0},
        {"image_fps": 12.0},
        {"draws_per_clip": 5},
        {"seed": 1},
    ],
    ids=str,
)
def test_other_settings_make_other_latents_and_leave_the_old_ones(folder: Path, change: dict[str, object]) -> None:
    before = build(folder)
    after = build(folder, dataclasses.replace(SETTINGS, **change))
    assert {clip.latents for clip in before.clips}.isdisjoint(clip.latents for clip in after.clips)
    assert same(before, build(folder, encoders=never))


def test_other_weights_make_everything_anew(folder: Path) -> None:
    build(folder)
    encoders = FakeEncoders()
    build(folder, encoders=lambda: encoders, weights="v2")
    assert encoders.batches and sorted(encoders.captions) == ["", "a wave", "things"]


def test_a_changed_clip_is_made_anew_and_the_others_are_not(folder: Path) -> None:
    build(folder)
    write_video(folder / "b.mkv", greys(13), fps=8)
    encoders = FakeEncoders()
    build(folder, encoders=lambda: encoders)
    assert len(encoders.batches) == 3 and encoders.captions == []


def test_a_changed_caption_or_prefix_keeps_the_latents(folder: Path) -> None:
    build(folder)
    (folder / "a wave.txt").write_text("a storm")
    encoders = FakeEncoders()
    clips = build(folder, encoders=lambda: encoders)
    assert encoders.batches == [] and encoders.captions == ["a storm"] and clips[0].caption == "a storm"
    prefixed = build(folder, dataclasses.replace(SETTINGS, caption_prefix="swell, "), lambda: encoders)
    assert encoders.batches == [] and prefixed[0].caption == "swell, a storm"
    assert torch.equal(prefixed.empty_text, clips.empty_text), "no text means no prefix either"


def test_a_caption_that_names_an_embedding_is_known_by_its_values_too(folder: Path) -> None:
    """The text encoder reads them from a file, which may have been replaced."""

    class Naming(FakeEncoders):
        def __init__(self, values: str) -> None:
            super().__init__()
            self.values = values

        def beside_words(self, caption: str) -> str:
            return self.values

    (folder / "a wave.txt").write_text("embedding:swell, a wave")
    first, again, other, missing = (Naming(values) for values in ("one", "one", "another", ""))
    made = [build(folder, encoders=lambda naming=naming: naming) for naming in (first, again, other, missing)]
    assert again.captions == [] and other.captions == missing.captions == ["embedding:swell, a wave"]
    names = [clips.content for clips in made]
    assert names[0] == names[1] and len(set(names)) == 3


@pytest.mark.parametrize("kind", ["clips", "text"])
@pytest.mark.parametrize("content", [None, b"", b"\0" * 400, b"hello", "half"])
def test_a_damaged_file_of_the_cache_is_made_anew(folder: Path, kind: str, content: bytes | str | None) -> None:
    before = in_memory(build(folder))
    paths = list((folder.parent / "cache" / kind).iterdir())
    for path in paths:
        whole = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert same(build(folder), before) and same(build(folder, encoders=never), before)


def test_an_item_whose_file_goes_bad_later_is_named(folder: Path) -> None:
    clips = build(folder)
    clips.clips[0].latents.write_bytes(b"")
    with pytest.raises(ValueError, match="of the cache cannot be read .* Start again"):
        clips[0]


def test_frames_are_encoded_a_few_at_a_time(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.mp4", greys(30))
    encoders = FakeEncoders()
    settings = dataclasses.replace(SETTINGS, frames=20, draws_per_clip=1)
    clips = build(tmp_path / "clips", settings, lambda: encoders)
    assert encoders.batches == [8, 8, 4] and clips[0].latents.shape[0] == 20


def test_a_clip_with_one_possible_sub_clip_gives_it_once(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.mp4", greys(4))
    assert len(build(tmp_path / "clips")) == 1
    flipped = build(tmp_path / "clips", dataclasses.replace(SETTINGS, flip=True, draws_per_clip=30))
    assert len(flipped) == 2, "as it is, and mirrored"


def test_stills_are_clips_of_one_frame_unless_they_are_off(folder: Path) -> None:
    with_stills = build(folder)
    assert [item.latents.shape[0] for item in in_memory(with_stills)].count(1) == 1
    without = build(folder, dataclasses.replace(SETTINGS, stills=False), never)
    assert len(without) == len(with_stills) - 1
    for path in folder.iterdir():
        if path.suffix != ".png" and path.is_file():
            path.unlink()
    shutil.rmtree(folder / "e")
    with pytest.raises(ValueError, match="no clips to train on: 1 stills, and stills are off"):
        build(folder, dataclasses.replace(SETTINGS, stills=False), never)


def test_a_clip_of_its_own_shape_keeps_it_in_buckets(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "wide.mp4", greys(8, (160, 64)))
    write_video(tmp_path / "clips" / "tall.mp4", greys(8, (64, 128)))
    settings = dataclasses.replace(SETTINGS, width=64, height=64, bucket_sizes=True, bucket_step=8)
    clips = build(tmp_path / "clips", settings)
    assert {clips[place].latents.shape[2:] for place in range(len(clips))} == {(6, 10), (10, 6)}


def spoil(folder: Path) -> None:
    write_video(folder / "short.mp4", greys(3))
    (folder / "garbage.webm").write_bytes(b"garbage")
    (folder / "empty.mov").write_bytes(b"")
    write_sound(folder / "sound.mp4", "aac")
    damage(write_video(folder / "broken.mp4", greys(8)), 5)
    write_picture(folder / "uneven" / "1.png", 1)
    for number in range(2, 6):
        write_picture(folder / "uneven" / f"{number}.png", number, (32, 32))
    write_animation(folder / "slow.gif", 8, 1000)


SKIPPED = {
    "short.mp4": "has 3 frames; a sub-clip needs 4",
    "garbage.webm": "cannot be read as a video",
    "empty.mov": "cannot be read as a video",
    "sound.mp4": "holds sound but no picture",
    "broken.mp4": "is damaged near 0.",
    "uneven": "has frames of several sizes, 64 x 48 and 32 x 32",
    "slow.gif": "has 1 frames a second, fewer than fps_min, which is 4",
}


def test_clips_that_cannot_be_used_are_named_counted_and_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(folder)
    with caplog.at_level(logging.WARNING):
        clips = build(folder, dataclasses.replace(SETTINGS, draws_per_clip=8))
    assert {path.name for path, _ in clips.skipped} == SKIPPED.keys()
    for path, reason in clips.skipped:
        assert reason.startswith(SKIPPED[path.name])
        assert any(str(path) in record.getMessage() and reason in record.getMessage() for record in caplog.records)
    assert "7 of 13 clips are skipped" in caplog.text and len(clips.clips) == 6


def test_what_was_skipped_once_is_skipped_again_without_an_encoder(folder: Path) -> None:
    spoil(folder)
    first = build(folder)
    again = build(folder, encoders=never)
    assert first.skipped == again.skipped and len(first.skipped) == 7 and same(first, again)


def test_a_clip_that_was_mended_is_used(folder: Path) -> None:
    write_video(folder / "short.mp4", greys(3))
    assert len(build(folder).skipped) == 1
    write_video(folder / "short.mp4", greys(5))
    assert build(folder).skipped == ()


def test_when_no_clip_is_left_every_reason_is_told(tmp_path: Path) -> None:
    spoil(tmp_path / "clips")
    with pytest.raises(ValueError, match="^None of the 7 clips can be used: ") as caught:
        build(tmp_path / "clips", dataclasses.replace(SETTINGS, draws_per_clip=8))
    assert sum(name in str(caught.value) for name in SKIPPED) == 5 and str(caught.value).endswith("; and 2 more.")


def test_progress_names_each_clip_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, str]] = []
    opened = []

    def opening(clip: object, fps: float, most_pixels: int) -> object:
        opened.append((clip.path.name, told[-1][2]))
        return latent_cache_open(clip, fps)

    latent_cache_open = latent_cache.open_clip
    monkeypatch.setattr(latent_cache, "open_clip", opening)
    clips = find_clips(folder)
    build_cache(clips, SETTINGS, folder.parent / "cache", "v1", FakeEncoders, lambda *row: told.append(row))
    names = ["a wave.mp4", "b.mkv", "c.gif", "d.webp", "f.png", "e"]
    read = [(place, 6, f"reading {name}") for place, name in enumerate(names)]
    assert [row for row in told if row[2].startswith("reading ")] == read
    encoded = [row for row in told if row[2].startswith("encoding ")]
    assert encoded[0] == (0, 6, "encoding a wave.mp4, sub-clip 1 of 3")
    assert encoded[-3:] == [(6, 6, "encoding captions")] * 3
    assert [name for _, _, name in encoded[:-3] if "sub-clip 1 of" in name] == [
        f"encoding {name}, sub-clip 1 of {1 if name == 'f.png' else 3}" for name in names
    ]
    assert opened == [(name, f"reading {name}") for name in names]


@pytest.mark.parametrize("at", [2, 6])
def test_work_that_is_stopped_keeps_what_is_finished(folder: Path, at: int) -> None:
    class StoppedError(Exception):
        pass

    def stopping(done: int, total: int, name: str) -> None:
        if done == at:
            raise StoppedError

    encoders = FakeEncoders()
    with pytest.raises(StoppedError):
        build_cache(find_clips(folder), SETTINGS, folder.parent / "cache", "v1", lambda: encoders, stopping)
    before = len(encoders.batches)
    build(folder, encoders=lambda: encoders)
    fresh = FakeEncoders()
    build(folder, encoders=lambda: fresh, weights="v2")
    assert len(encoders.batches) == len(fresh.batches) and 0 < before
    assert (before < len(encoders.batches)) == (at == 2)


def test_a_write_that_fails_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("magicvideo.adaptor_unet.whole_file.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        build(folder)
    assert [name for _, _, names in os.walk(folder.parent / "cache") for name in names] == ["contents.json"]


def test_values_that_are_not_finite_stop_the_work_with_a_remedy(folder: Path) -> None:
    class Broken(FakeEncoders):
        def pictures(self, frames: torch.Tensor) -> torch.Tensor:
            return super().pictures(frames) * 1e6

    with pytest.raises(ValueError, match="not finite. Let it work in 32 bits"):
        build(folder, encoders=Broken)
    assert build(folder).skipped == (), "and are not held against the clip"


def test_latents_made_in_inference_mode_can_be_trained_on(folder: Path) -> None:
    with torch.inference_mode():
        clips = build(folder)
    item = clips[0]
    weight = torch.ones(1, requires_grad=True)
    (item.latents.float() * weight).sum().backward()
    (item.text * weight).sum().backward()
    assert not item.latents.is_inference() and not clips.empty_text.is_inference()


@pytest.mark.parametrize("kind", ["clips", "text"])
def test_a_flipped_bit_is_noticed_and_the_next_start_makes_the_file_anew(folder: Path, kind: str) -> None:
    clips = build(folder)
    before = in_memory(clips)
    path = clips.clips[0].latents if kind == "clips" else clips.clips[0].text
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} of the cache cannot be read .*values.* Start again"):
        in_memory(build(folder, encoders=never))
    assert same(build(folder), before)


def test_text_that_is_not_finite_is_not_kept(folder: Path) -> None:
    class Broken(FakeEncoders):
        def text(self, caption: str) -> torch.Tensor:
            return super().text(caption) * float("nan")

    with pytest.raises(ValueError, match="the caption '' that are not finite"):
        build(folder, encoders=Broken)
    assert all(item.text.isfinite().all() for item in in_memory(build(folder)))


def test_a_clip_that_changes_while_it_is_encoded_is_not_kept_under_its_old_content(folder: Path) -> None:
    class Meddler(FakeEncoders):
        def pictures(self, frames: torch.Tensor) -> torch.Tensor:
            if not self.batches:
                write_video(folder / "a wave.mp4", greys(12))
            return super().pictures(frames)

    first = (folder / "a wave.mp4").read_bytes()
    clips = build(folder, encoders=Meddler)
    assert [path.name for path, _ in clips.skipped] == ["a wave.mp4"]
    assert not build(folder).skipped
    (folder / "a wave.mp4").write_bytes(first)
    encoders = FakeEncoders()
    build(folder, encoders=lambda: encoders)
    assert encoders.batches, "nothing is there for the first content"


def test_a_file_of_the_cache_says_what_it_was_made_of(folder: Path) -> None:
    clip = build(folder).clips[0]
    made_of = json.loads(read_metadata(clip.latents)["magicvideo.made_of"])
    assert made_of["encoders"] == "v1" and made_of["kind"] == "video" and made_of["settings"]["width"] == 64
    assert json.loads(read_metadata(clip.text)["magicvideo.made_of"])["caption"] == "a wave"


@pytest.mark.parametrize("size", [(1000, 3), (1, 2000)])
def test_a_clip_that_is_far_too_long_is_named_and_left_out(folder: Path, size: tuple[int, int]) -> None:
    for number in range(8):
        write_picture(folder / "rule" / f"{number}.png", number, size)
    ((path, reason),) = build(folder).skipped
    assert path.name == "rule" and reason.startswith(f"is {size[0]} x {size[1]}; less than one part in 32")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_clip_that_could_not_be_read_for_once_is_read_the_next_time(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(clip: object, *_: object) -> object:
        raise ClipFileError(clip.path, "cannot be read") from error

    with monkeypatch.context() as patched:
        patched.setattr("magicvideo.adaptor_unet.training.data.latent_cache.open_clip", failing)
        with pytest.raises(ValueError, match="None of the 6 clips can be used"):
            build(folder)
    assert build(folder).skipped == ()
