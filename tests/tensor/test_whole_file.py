"""A file is there whole or not at all."""

import os
from pathlib import Path

import pytest

from magicvideo.adaptor_unet.whole_file import written_whole


def test_the_folder_is_made_and_the_file_is_there_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "내 파일.bin"
    with written_whole(path) as partial:
        partial.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"), written_whole(path) as partial:
        partial.write_bytes(b"ne")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_move_that_refuses_leaves_nothing_of_the_new_file(tmp_path: Path) -> None:
    def refuse(partial: Path, path: Path) -> None:
        raise FileExistsError(path)

    with pytest.raises(FileExistsError), written_whole(tmp_path / "file.bin", refuse) as partial:
        partial.write_bytes(b"new")
    assert os.listdir(tmp_path) == []
