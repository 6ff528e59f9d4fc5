"""Loads the pack once, by file location, under the name ``magicvideo``: its root never gets onto ``sys.path``."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if "magicvideo" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "magicvideo", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["magicvideo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["magicvideo"])
