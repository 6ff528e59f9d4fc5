"""Loads this pack once, by its place, as ``magicvideo``.

Its folder must not be on the path: its ``nodes`` would hide ComfyUI's module of that name.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if "magicvideo" not in sys.modules:
    place = importlib.util.spec_from_file_location(
        "magicvideo", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["magicvideo"] = importlib.util.module_from_spec(place)
    place.loader.exec_module(sys.modules["magicvideo"])
