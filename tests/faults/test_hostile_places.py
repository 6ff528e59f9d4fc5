"""Places that cannot be written to, and names that files cannot have: a sentence each."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from made_clips import write_picture
from magicvideo.adaptor_unet.file_names import why_no_name
from magicvideo.adaptor_unet.training.data.cache_files import save_json
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.prepare import clips_of_folder
from magicvideo.adaptor_unet.training.data.shards import check_new
from magicvideo.adaptor_unet.training.watchers import Record, read_records
from magicvideo.adaptor_unet.whole_file import OutputError, check_writable, save_tensors, unwritable, written_whole

ONE = {"a": torch.ones(1)}


def test_a_file_where_a_folder_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for write in (
        lambda: save_tensors(tmp_path / "file" / "a", ONE),
        lambda: save_json(tmp_path / "file" / "b" / "a", {}),
        lambda: Record(tmp_path / "file", 0, 8),
        lambda: check_new(tmp_path / "file"),
        lambda: check_writable(tmp_path / "file" / "a"),
    ):
        with pytest.raises(OutputError, match="cannot be written: a file stands where a folder is needed"):
            write()


def test_a_cache_that_cannot_be_written_is_said_before_a_clip_is_encoded(tmp_path: Path) -> None:
    write_picture(tmp_path / "clips" / "a.png")
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(OutputError, match="cache.* cannot be written: a file stands where a folder is needed"):
        clips_of_folder(tmp_path / "clips", DataSettings(), 1, tmp_path / "cache", pytest.fail, "", pytest.fail)


def test_a_folder_where_the_file_should_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="that is a folder. Choose another name"):
        check_writable(tmp_path)


def test_a_name_of_300_letters_is_said(tmp_path: Path) -> None:
    for name in ("x" * 300, "한" * 100, "x" * 300 + "/a"):
        with pytest.raises(OutputError, match="the name is too long"):
            save_tensors(tmp_path / name, ONE)
        with pytest.raises(OutputError, match="the name is too long"):
            check_writable(tmp_path / name)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left there. Make room"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left there"),
        (PermissionError(errno.EACCES, "Permission denied"), "writing is not allowed there"),
        (OSError(errno.EROFS, "Read-only file system"), "writing is not allowed there"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_the_systems_errors_are_sentences(tmp_path: Path, error: Exception, said: str) -> None:
    with pytest.raises(OutputError, match=said), written_whole(tmp_path / "a"):
        raise error
    assert isinstance(unwritable(tmp_path, error), ValueError) and not os.listdir(tmp_path)


def test_a_full_disk_between_two_saves_is_a_sentence(tmp_path: Path) -> None:
    record = Record(tmp_path, 0, 8)
    if os.path.exists("/dev/full"):
        record.path = Path("/dev/full")
        with pytest.raises(OutputError, match="No space left there"):
            record.numbers(1, 5, {"loss": 1.0})


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    check_writable(tmp_path / "a")
    check_writable(tmp_path / "new" / "b")
    assert (tmp_path / "a").read_bytes() == b"old" and not os.listdir(tmp_path / "new")


def test_damaged_lines_of_a_record_are_dropped(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "loss": 2.0}',
        "null",
        "[1]",
        '{"loss": 1}',
        '{"step": "x"}',
        '{"step": 2, "loss": null}',
        "{",
    ]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join([*lines, "{", "[" * 100_000]).encode() + b"\n\xff\xfe\n")
    assert read_records(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize("name", ["motion", "waves_v1.5", "파도 1", "浪", "mödels", "CONSOLE", "a\u200cb"])
def test_names_that_files_may_have(name: str) -> None:
    assert why_no_name(name) == ""


REFUSED = ["", ".", "..", " a", "a ", "a.", "a\nb", "a\x1b[31m", "a\u202egnp", "a\u2066", "a\0", "a:b", "a*b", 'a"b']
REFUSED += ["CON", "nul.txt", "com1", "LPT9.safetensors", "x" * 300, "한" * 100, "a/b", "a\\b", "a|b", "a<b", "\ud800"]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_some_system_refuses(name: str) -> None:
    assert why_no_name(name)
