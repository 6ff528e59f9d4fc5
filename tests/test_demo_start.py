"""What bin/demo answers before it fetches anything, in a clone where nothing has been set up yet."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pack import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository without what is made in it; its bin/setup only says that it was started."""
    for name in ("__init__.py", "bin", "demo", "tools"):
        source, target = ROOT / name, tmp_path / name
        ignored = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    (tmp_path / "bin" / "setup").write_text("echo setup was started\nexit 3\n", encoding="utf-8")
    return tmp_path


def demo(clone: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "PYTHONNOUSERSITE": "1"}
    command = ["bash", str(clone / "bin" / "demo"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--help"], 0, "--seed"),
        (["a dog moving left"], 2, "'dog'"),
        (["a cat and a fish"], 2, "one subject"),
        (["a cat", "--seed", "-1"], 2, "must be from 0 to"),
        (["a cat", "--frames", "many"], 2, "--frames"),
    ],
)
def test_help_and_what_cannot_be_made_are_answered_before_anything_is_fetched(
    clone: Path, words: list[str], status: int, told: str
) -> None:
    done = demo(clone, *words)
    assert done.returncode == status and told in done.stdout + done.stderr
    assert "setup was started" not in done.stdout and "Traceback" not in done.stderr
    assert not (clone / ".venv").exists()


def test_a_wish_that_can_be_met_is_told_how_long_it_takes_and_then_setup_begins(clone: Path) -> None:
    done = demo(clone, "a cat", "--frames", "1")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-2:] == [
        "First ComfyUI and its packages are fetched: several GB, once. Then 1 frame takes about 1 min on a processor, "
        "less on a GPU.",
        "setup was started",
    ]
