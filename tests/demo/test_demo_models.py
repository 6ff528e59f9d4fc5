"""The demo's model files are written when they are missing or out of date, and only then."""

import os
from pathlib import Path

import pytest

from magicvideo.demo.model.demo_models import ensure_file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_text("weights", encoding="utf-8")
    return path


def test_a_missing_file_is_written_once(tmp_path: Path, source: Path) -> None:
    written: list[Path] = []

    def write(path: Path) -> None:
        path.write_text("model", encoding="utf-8")
        written.append(path)

    path = tmp_path / "models" / "checkpoints" / "demo.safetensors"
    for _ in range(2):
        ensure_file(path, [source], write)
    assert written == [path]


def test_newer_weights_make_a_new_file(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "demo.safetensors"
    path.write_text("old", encoding="utf-8")
    later = path.stat().st_mtime + 10
    os.utime(source, (later, later))
    ensure_file(path, [source], lambda path: path.write_text("new", encoding="utf-8"))
    assert path.read_text(encoding="utf-8") == "new"


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        ensure_file(tmp_path / "demo.safetensors", [tmp_path / "nowhere.safetensors"], lambda path: None)
