"""The demo's files in one step: written by the pack where it is installed, into the ComfyUI that holds it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pack import ROOT

from magicvideo.tools.host_in_process import find_host

COMMAND = [sys.executable, "custom_nodes/ComfyUI-MagicVideo/bin/demo_files.py"]
# What the command writes and says is the pack's own, and the demo takes the newest ComfyUI there is.
pytestmark = pytest.mark.on_newest
FILES = ("models/checkpoints/magicvideo_demo.safetensors", "models/magicvideo/magicvideo_demo.safetensors")


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A ComfyUI with this pack among its custom nodes, whose own files are links."""
    (tmp_path / "models").mkdir()
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "ComfyUI-MagicVideo").symlink_to(ROOT, target_is_directory=True)
    for entry in find_host().iterdir():
        if entry.name not in ("models", "custom_nodes"):
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def run(comfyui: Path, *words: str, command: list[str] = COMMAND) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    return subprocess.run(
        [*command, *words], cwd=comfyui, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_one_command_in_comfyuis_folder_puts_both_files_in_their_place_and_once(comfyui: Path) -> None:
    done = run(comfyui)
    assert done.returncode == 0, done.stderr
    made = [comfyui / name for name in FILES]
    assert all(path.is_file() and path.stat().st_size > 1 << 20 for path in made)
    times = [path.stat().st_mtime_ns for path in made]
    assert run(comfyui).returncode == 0 and [path.stat().st_mtime_ns for path in made] == times


def test_the_portable_comfyuis_python_runs_it_too_by_any_way_to_it(comfyui: Path) -> None:
    """That one is isolated, as with -I: the folder of the script is not where modules are looked for."""
    (comfyui / "custom_nodes" / "another").mkdir()
    script = "custom_nodes/another/../ComfyUI-MagicVideo/bin/demo_files.py"
    done = run(comfyui, command=[sys.executable, "-I", script])
    assert done.returncode == 0, done.stderr
    assert all((comfyui / name).is_file() for name in FILES)


def test_a_pack_without_weights_says_where_they_are(comfyui: Path) -> None:
    """As the registry hands it out."""
    pack = comfyui / "custom_nodes" / "from_registry"
    for name in ("__init__.py", "adaptor_unet", "bin", "demo", "tools"):
        source, target = ROOT / name, pack / name
        ignored = shutil.ignore_patterns("__pycache__", "weights")
        pack.mkdir(exist_ok=True)
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    done = run(comfyui, command=[sys.executable, "custom_nodes/from_registry/bin/demo_files.py"])
    assert done.returncode == 2 and "A clone of the repository has it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_models_is_named(comfyui: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = run(comfyui, str(tmp_path / "elsewhere"))
    assert done.returncode == 2 and "no folder models" in done.stderr and "elsewhere" in done.stderr
