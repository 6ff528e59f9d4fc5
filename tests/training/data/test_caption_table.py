"""Captions in one table for a folder of clips, as other trainers take them."""

import json
import logging
from pathlib import Path

import pytest

from made_clips import greys, write_picture, write_video
from magicvideo.adaptor_unet.training.data.clip_files import find_clips


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "deep/b.mp4", "c.mp4"):
        write_video(tmp_path / name, greys(2))
    (tmp_path / "caption.txt").write_text("of the folder")
    return tmp_path


def captions(folder: Path) -> dict[str, str]:
    return {clip.path.name: clip.caption for clip in find_clips(folder)}


ROWS = [{"file_name": "a.mp4", "text": 'a  "red"\nsquare, 파도'}, {"file_name": "deep/b.mp4", "text": "b"}]


def test_a_table_names_clips_below_it_and_a_text_file_beside_a_clip_comes_first(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    expected = {"a.mp4": 'a "red" square, 파도', "b.mp4": "b", "c.mp4": "of the folder"}
    assert captions(folder) == expected
    (folder / "a.txt").write_text("its own")
    assert captions(folder) == expected | {"a.mp4": "its own"}


def test_a_csv_file_says_the_same_and_other_names_of_columns_are_known(folder: Path) -> None:
    table = '\ufefffile_name,score,text\na.mp4,1,"a  ""red""\nsquare, 파도"\ndeep/b.mp4,2,b\n'
    (folder / "metadata.csv").write_text(table, encoding="utf-8")
    assert captions(folder)["a.mp4"] == 'a "red" square, 파도' and captions(folder)["b.mp4"] == "b"
    (folder / "metadata.csv").write_text("caption,video_path\nnew,a.mp4\n", encoding="utf-8")
    assert captions(folder) == {"a.mp4": "new", "b.mp4": "of the folder", "c.mp4": "of the folder"}


def test_a_folder_of_pictures_has_a_row_or_each_of_its_pictures(folder: Path) -> None:
    for number in range(2):
        write_picture(folder / "storm" / f"{number}.png", number)
    (folder / "metadata.jsonl").write_text('{"file_name": "storm", "text": "waves"}')
    assert captions(folder)["storm"] == "waves"
    (folder / "metadata.jsonl").write_text('{"file_name": "storm/0.png", "text": "still"}')
    assert captions(folder)["0.png"] == "still" and "storm" not in captions(folder)


def test_rows_without_a_clip_are_counted_and_the_table_itself_is_not_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS, {"file_name": "../../etc/passwd", "text": "x"}, {"file_name": "gone.mp4", "text": "x"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.WARNING):
        captions(folder)
    assert "2 rows of caption tables name no clip" in caplog.text and "Passed over" not in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.jsonl", b'{"file_name": "a.mp4", "text": "x"}\n{"file_na', "line 2, is no JSON"),
        ("metadata.jsonl", b'{"file_name": "a.mp4", "score": 1}', "line 1, has no caption: expected one of text"),
        ("metadata.jsonl", b'{"text": "x", "file_name": 3}', "line 1, has no file: expected one of file_name"),
        ("metadata.jsonl", b"[" * 100_000, "cannot be read as a table"),
        ("metadata.jsonl", b"7", "line 1, has no file"),
        ("metadata.csv", b"file_name,text\na.mp4\n", "line 2, has no caption"),
        ("metadata.csv", b"\xff\xfe\x00", "cannot be read as a table"),
        ("metadata.csv", b'file_name,text\na.mp4,"' + b"x" * 200_000, "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_its_line(
    name: str, content: bytes, words: str, folder: Path
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{words}"):
        find_clips(folder)
