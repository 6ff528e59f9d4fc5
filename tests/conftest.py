"""Loads the pack once, by file location, under the name ``magicvideo``: its root never gets onto ``sys.path``."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load_pack() -> None:
    spec = importlib.util.spec_from_file_location(
        "magicvideo", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["magicvideo"] = pack
    spec.loader.exec_module(pack)


if "magicvideo" not in sys.modules:
    load_pack()
