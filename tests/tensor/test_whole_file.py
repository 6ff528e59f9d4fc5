"""A file is there whole or not at all, and names for tensors tell every difference, wherever it lies."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from magicvideo.adaptor_unet import whole_file
from magicvideo.adaptor_unet.whole_file import OutputError, content_name, save_tensors, written_whole


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


@pytest.mark.parametrize(("times", "there"), [(2, b"new"), (99, b"old")])
def test_a_file_that_somebody_looks_at_is_replaced_a_moment_later(
    times: int, there: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace, tries = tmp_path / "file.bin", os.replace, []
    path.write_bytes(b"old")

    def held(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) <= times:
            raise PermissionError(13, "another program has it open")
        replace(source, target)

    monkeypatch.setattr(whole_file.os, "replace", held)
    monkeypatch.setattr(whole_file, "WAITS", (0.0,) * 4)
    with pytest.raises(OutputError) if there == b"old" else nullcontext(), written_whole(path) as partial:
        partial.write_bytes(b"new")
    assert path.read_bytes() == there and os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_each_single_value_counts(dtype: torch.dtype) -> None:
    values = torch.zeros(3, 5, 7, dtype=dtype)
    names = {content_name([("x", values)])}
    for place in range(values.numel()):
        changed = values.clone()
        changed.view(-1)[place] = 1
        names.add(content_name([("x", changed)]))
    assert len(names) == 1 + values.numel()


def test_name_shape_dtype_and_order_count_and_layout_does_not() -> None:
    x, y = torch.arange(6.0).reshape(2, 3), torch.zeros(())
    names = [[("x", x)], [("y", x)], [("x", x.reshape(3, 2))], [("x", x.double())], [("x", x), ("y", y)]]
    names.append([("y", y), ("x", x)])
    assert len({content_name(tensors) for tensors in names}) == len(names)
    assert content_name([("x", x.T.contiguous().T)]) == content_name([("x", x)])
    with torch.inference_mode():
        assert content_name([("x", x + 0)]) == content_name([("x", x)])
    assert content_name([("x", torch.zeros(0))]) != content_name([])


@pytest.mark.skipif(os.name == "nt", reason="rights of files are another matter there")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_tensors_can_be_read_by_whoever_can_read_other_new_files(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save_tensors(tmp_path / "tensors.safetensors", {"a": torch.zeros(1)})
    finally:
        os.umask(before)
    assert (tmp_path / "tensors.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
