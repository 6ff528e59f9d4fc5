"""Which files are clips, in which order, and with which caption."""

import os
import unicodedata
from pathlib import Path

import pytest

from made_clips import write_animation, write_picture
from magicvideo.adaptor_unet.training.data import clip_files
from magicvideo.adaptor_unet.training.data.clip_files import ClipFile, find_clips, pictures_in


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def named(folder: Path) -> list[str]:
    return [clip.path.relative_to(folder).as_posix() for clip in find_clips(folder)]


def captions(folder: Path) -> dict[str, str]:
    return {clip.path.relative_to(folder).as_posix(): clip.caption for clip in find_clips(folder)}


def test_every_kind_of_clip_is_found_whatever_the_case_of_its_ending(tmp_path: Path) -> None:
    videos = ["a.mp4", "b.webm", "c.mov", "d.mkv", "e.avi", "f.mpeg", "g.MP4", "h.Mpg"]
    touch(*(tmp_path / name for name in [*videos, "notes.txt", "model.safetensors", "Thumbs.db", "noending"]))
    write_animation(tmp_path / "i.gif", 3, 100)
    write_animation(tmp_path / "j.WEBP", 3, 100)
    write_picture(tmp_path / "k.webp")
    write_picture(tmp_path / "l.gif")
    write_picture(tmp_path / "m.JPG")
    found = {clip.path.name: clip.kind for clip in find_clips(tmp_path)}
    assert found == dict.fromkeys([*videos, "i.gif"], "video") | {
        "j.WEBP": "animation",
        "k.webp": "still",
        "l.gif": "still",
        "m.JPG": "still",
    }


def test_a_sub_folder_of_pictures_is_one_clip_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1, 100):
        write_picture(tmp_path / "wave" / f"frame{number}.png")
    write_picture(tmp_path / "still.png")
    assert find_clips(tmp_path) == [
        ClipFile(tmp_path / "still.png", "", "still"),
        ClipFile(tmp_path / "wave", "", "pictures"),
    ]
    assert [path.stem for path in pictures_in(tmp_path / "wave")] == ["frame1", "frame9", "frame10", "frame100"]


def test_pictures_beside_a_video_or_with_captions_of_their_own_or_alone_are_stills(tmp_path: Path) -> None:
    for folder in ("video", "captioned", "alone"):
        write_picture(tmp_path / folder / "a.png")
    for folder in ("video", "captioned"):
        write_picture(tmp_path / folder / "b.png")
    touch(tmp_path / "video" / "c.mp4")
    (tmp_path / "captioned" / "b.txt").write_text("a cat")
    kinds = {clip.path.relative_to(tmp_path).as_posix(): clip.kind for clip in find_clips(tmp_path)}
    assert kinds == {
        "alone/a.png": "still",
        "captioned/a.png": "still",
        "captioned/b.png": "still",
        "video/a.png": "still",
        "video/b.png": "still",
        "video/c.mp4": "video",
    }


def test_pictures_right_in_the_given_folder_are_stills(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png")
    write_picture(tmp_path / "2.png")
    assert {clip.kind for clip in find_clips(tmp_path)} == {"still"}


def test_the_order_is_by_name_with_numbers_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "2.mp4",
        "10.mp4",
        "a 1.mp4",
        "a 02.mp4",
        "a 3.mp4",
        "B/1.mp4",
        "é.mp4",
        "고양이.mp4",
        "猫 2.mp4",
        "猫 10.mp4",
    ]
    touch(*(tmp_path / name for name in names))
    found = named(tmp_path)
    assert sorted(found) == sorted(names)
    direct = [name for name in found if "/" not in name]
    assert direct == [
        "2.mp4",
        "10.mp4",
        "a 1.mp4",
        "a 02.mp4",
        "a 3.mp4",
        "é.mp4",
        "猫 2.mp4",
        "猫 10.mp4",
        "고양이.mp4",
    ]
    listed = Path.iterdir
    monkeypatch.setattr(clip_files.Path, "iterdir", lambda self: reversed(sorted(listed(self))))
    assert named(tmp_path) == found, "whatever order the system lists them in"


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "._a.mp4", tmp_path / ".trash" / "b.mp4", tmp_path / "c.mp4")
    assert named(tmp_path) == ["c.mp4"]


def test_a_link_is_followed_and_a_loop_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path / "far" / "a.mp4", tmp_path / "near" / "b.mp4")
    try:
        os.symlink(tmp_path / "far", tmp_path / "near" / "link", target_is_directory=True)
        os.symlink(tmp_path / "near", tmp_path / "near" / "loop", target_is_directory=True)
        os.symlink(tmp_path / "near", tmp_path / "far" / "back", target_is_directory=True)
        os.symlink(tmp_path / "gone.mp4", tmp_path / "near" / "dangling.mp4")
    except OSError:
        pytest.skip("this system makes no links")
    assert named(tmp_path / "near") == ["b.mp4", "link/a.mp4"]


def test_the_caption_of_the_same_name_comes_before_the_folders(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.mp4", "a.webm", "b.mp4", "in/c.mp4", "in/deep/d.mp4", "other/e.mp4")))
    (tmp_path / "a.TXT").write_text("a rocket rises")
    (tmp_path / "caption.txt").write_text("waves")
    (tmp_path / "in" / "caption.txt").write_text("rain")
    assert captions(tmp_path) == {
        "a.mp4": "a rocket rises",
        "a.webm": "a rocket rises",
        "b.mp4": "waves",
        "in/c.mp4": "rain",
        "in/deep/d.mp4": "rain",
        "other/e.mp4": "waves",
    }
    assert captions(tmp_path / "in" / "deep") == {"d.mp4": ""}, "nothing above the given folder counts"


def test_a_folder_of_pictures_takes_the_caption_beside_it_then_the_one_inside(tmp_path: Path) -> None:
    for name in ("v1.5 wave", "rain"):
        write_picture(tmp_path / name / "1.png")
        write_picture(tmp_path / name / "2.png")
        (tmp_path / name / "caption.txt").write_text(f"inside {name}")
    (tmp_path / "v1.5 wave.txt").write_text("beside")
    assert captions(tmp_path) == {"rain": "inside rain", "v1.5 wave": "beside"}


@pytest.mark.parametrize(
    "raw",
    [
        "a café at night".encode(),
        "\ufeffa café at night".encode(),
        "a café at night".encode("utf-16"),
        b"\xfe\xff" + "a café at night".encode("utf-16-be"),
        "  a café\r\nat night\r\n".encode(),
        "a\tcafé\n\n at night".encode(),
    ],
)
def test_a_caption_is_one_line_whatever_the_editor(tmp_path: Path, raw: bytes) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_bytes(raw)
    assert captions(tmp_path) == {"a.mp4": "a café at night"}


def test_names_match_however_the_system_stores_accents(tmp_path: Path) -> None:
    touch(tmp_path / (unicodedata.normalize("NFD", "한국어 café") + ".mp4"))
    (tmp_path / (unicodedata.normalize("NFC", "한국어 café") + ".txt")).write_text("a wave")
    assert list(captions(tmp_path).values()) == ["a wave"]


def test_captions_that_are_no_text_are_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4")
    (tmp_path / "a.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (tmp_path / "b.txt").write_bytes("고양이".encode("cp949"))
    with pytest.raises(ValueError, match=r"2 captions are no UTF-8 text: .*a\.txt, .*b\.txt. Save them as UTF-8"):
        find_clips(tmp_path)


def test_no_folder_and_no_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone is not a folder"):
        find_clips(tmp_path / "gone")
    touch(tmp_path / "a.txt", tmp_path / "b.flac")
    with pytest.raises(ValueError, match="holds no clips. Expected .mp4"):
        find_clips(tmp_path)


def test_what_a_run_has_made_is_no_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_animation(tmp_path / "wave.webp", 3, 100)
    write_animation(tmp_path / "waves.run" / "samples" / "step_2.webp", 3, 100)
    write_picture(tmp_path / "waves.run" / "loss.png")
    with caplog.at_level("INFO"):
        assert named(tmp_path) == ["wave.webp"]
    assert f"Left out {tmp_path / 'waves.run'}" in caplog.text


def test_no_folder_is_listed_once_for_each_that_lies_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write_picture(tmp_path / f"{number}" / "1.png", 1)
        write_picture(tmp_path / f"{number}" / "2.png", 2)
    (tmp_path / "4.txt").write_text("four")
    listed, listing = [], clip_files.in_order
    monkeypatch.setattr(clip_files, "in_order", lambda folder: listed.append(folder) or listing(folder))
    assert captions(tmp_path) == dict.fromkeys("01235", "") | {"4": "four"}
    assert listed.count(tmp_path) == 2
