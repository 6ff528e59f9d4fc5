"""bin/run starts scripts of this repository, and no others."""

import subprocess
import sys
from pathlib import Path

import pytest
from pack import ROOT
from run import script_named


def run(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "bin" / "run.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_script_is_named_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path("demo/train/motion.py")
    monkeypatch.chdir(ROOT)
    assert script_named(str(script)) == script
    monkeypatch.chdir(ROOT / "demo" / "train")
    assert script_named("motion.py") == script
    monkeypatch.chdir(tmp_path)
    assert script_named(str(ROOT / script)) == script


@pytest.mark.parametrize("name", ["demo/nowhere.py", "demo/README.md", "demo", "bin/train.py", "__init__.py"])
def test_what_is_no_script_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=f"{name} is no script of benchmarks, demo, tools"):
        script_named(name)


def test_a_script_gets_its_words(tmp_path: Path) -> None:
    done = run(str(ROOT / "tools" / "demo_workflows.py"), "--no-such-option", folder=tmp_path)
    assert done.returncode == 2
    assert "demo_workflows.py: error" in done.stderr and "--no-such-option" in done.stderr


def test_without_a_script_it_says_how_it_is_used() -> None:
    done = run()
    assert done.returncode != 0 and "bash bin/run demo/train/motion.py" in done.stderr
