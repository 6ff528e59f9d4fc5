"""Runs a script of ``demo``, ``tools`` or ``benchmarks`` as a part of the package ``magicvideo``.

  bash bin/run demo/train/motion.py --steps 500

So scripts import each other and the pack by name, from any folder, and the pack's own folder never comes onto the path,
where its ``nodes`` would hide ComfyUI's module of that name.

Several processes: .venv/bin/torchrun [OPTIONS] -- bin/run.py SCRIPT ...
"""

import runpy
import sys
from pathlib import Path

from pack import ROOT

from magicvideo.tools.host_in_process import start_host

FOLDERS = ("benchmarks", "demo", "tools")
# The scripts there import ComfyUI at their top. All others start it themselves, where they need it.
WITH_HOST = ("benchmarks", "demo/measure", "demo/train")
# What trains or samples the demo's network. The other benchmarks measure what ComfyUI chooses on this machine.
WITH_FUSED_ATTENTION = ("benchmarks/ablation.py", "benchmarks/consistency.py", "demo")


def is_below(path: Path, places: tuple[str, ...]) -> bool:
    """Whether the path is one of the places or lies in one."""
    return any(path.is_relative_to(place) for place in places)


def script_named(name: str) -> Path:
    """The script, relative to the pack's root.  Raises ValueError for one that is not there or not in FOLDERS."""
    place = Path(name).resolve()
    path = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place
    if path.suffix != ".py" or not place.is_file() or not is_below(path, FOLDERS):
        raise ValueError(f"{name} is no script of {', '.join(FOLDERS)} in {ROOT}")
    return path


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    try:
        script = script_named(sys.argv[1])
        if is_below(script, WITH_HOST):
            start_host(fused_attention=is_below(script, WITH_FUSED_ATTENTION))
    except (ValueError, ImportError) as error:
        sys.exit(f"bin/run: {error}")
    del sys.argv[0]
    module = ".".join(("magicvideo", *script.with_suffix("").parts))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
