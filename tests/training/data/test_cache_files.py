"""Names for contents."""

import os
from pathlib import Path

import pytest

from magicvideo.adaptor_unet.training.data import cache_files
from magicvideo.adaptor_unet.training.data.cache_files import ContentHashes, hash_of
from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_same_bytes_have_one_name_wherever_they_lie(tmp_path: Path) -> None:
    hashes = ContentHashes(tmp_path / "memory.json")
    one, other = write(tmp_path / "a", b"x" * 3_000_000), write(tmp_path / "b", b"x" * 3_000_000)
    assert hashes.of([one]) == hashes.of([other])
    assert hashes.of([one]) != hashes.of([write(tmp_path / "c", b"x" * 3_000_001)])


def test_the_order_of_files_counts_and_so_does_where_one_ends(tmp_path: Path) -> None:
    hashes = ContentHashes(tmp_path / "memory.json")
    a, b, ab, empty = (write(tmp_path / f"{text}", text) for text in (b"a", b"b", b"ab", b""))
    assert len({hashes.of(paths) for paths in ([a, b], [b, a], [ab], [ab, empty], [a], [])}) == 6
    assert hash_of("a", "bc") != hash_of("ab", "c")


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", b"one")
    first = ContentHashes(tmp_path / "memory.json")
    name = first.of([path])
    first.save()
    read = []
    monkeypatch.setattr(cache_files, "read_hash", lambda path: read.append(path) or "new")
    assert ContentHashes(tmp_path / "memory.json").of([path]) == name and read == []
    os.utime(path, ns=(1, 1))
    assert ContentHashes(tmp_path / "memory.json").of([path]) != name and read == [path]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a", b"one")
    name = ContentHashes(tmp_path / "none.json").of([path])
    write(tmp_path / "memory.json", content.replace(b'"a"', f'"{path}"'.encode()))
    hashes = ContentHashes(tmp_path / "memory.json")
    assert hashes.of([path]) == name
    hashes.save()
    assert ContentHashes(tmp_path / "memory.json").of([path]) == name


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipFileError, match="gone.mp4 cannot be opened .No such file"):
        ContentHashes(tmp_path / "memory.json").of([tmp_path / "gone.mp4"])


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the system keeps no such time")
def test_other_bytes_of_the_same_size_and_time_are_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"one")
    hashes = ContentHashes(tmp_path / "memory.json")
    name, state = hashes.of([path]), path.stat()
    write(path, b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert hashes.of([path]) != name
