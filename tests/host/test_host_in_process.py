"""Scripts that bin/run starts import ComfyUI like any package, and the pack never stands in its way."""

import json
import os
import subprocess
import sys

import pytest
from pack import ROOT

from magicvideo.tools.host_in_process import find_host, start_host

FOUND = """
import json, runpy, sys
script, *words = sys.argv[1:]
sys.argv[:] = ["bin/run.py", script, *words]
sys.path[0] = "bin"
try:
    runpy.run_path("bin/run.py", run_name="__main__")
except SystemExit as end:
    import comfy.sd, nodes
    args = sys.modules["comfy.cli_args"].args
    found = {module.__name__: module.__file__ for module in (nodes, comfy.sd)}
    print(json.dumps(found | {"code": end.code, "path": sys.path, "fused": args.use_pytorch_cross_attention}))
"""


@pytest.mark.on_newest
def test_a_script_gets_the_hosts_modules_from_the_packs_own_folder_too() -> None:
    command = [sys.executable, "-c", FOUND, "demo/measure/show_base.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    host = find_host()
    assert found["nodes"] == str(host / "nodes.py") and found["comfy.sd"] == str(host / "comfy" / "sd.py")
    assert found["code"] == 0 and found["fused"] is True
    assert str(ROOT) not in found["path"] and "" not in found["path"]


def test_the_host_is_the_one_that_is_named_and_is_started_once() -> None:
    before = list(sys.path)
    assert start_host() == find_host()
    assert str(find_host()) == os.path.realpath(os.environ["COMFYUI_PATH"])
    assert sys.path == before


def test_a_folder_without_comfyui_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ImportError, match="no ComfyUI in .*bash bin/setup"):
        find_host()
