"""Writes the demo model's two files into the ComfyUI that this pack is installed in, for the templates demo_...

    python custom_nodes/ComfyUI-MagicVideo/bin/demo_files.py

in ComfyUI's folder, with the Python that runs ComfyUI. A clone has the weights that they are written from, the package
of the registry has not. What is there already stays, unless it is older than the weights that it is written from.
"""

import argparse
import os
import sys
from pathlib import Path

# The portable ComfyUI's Python leaves out the folder of the script that it runs.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pack  # noqa: E402, F401 - makes the pack importable

# As it was called, because the pack's folder may be a link.
INSTALLED_IN = Path(os.path.abspath(os.path.join(__file__, "../../../..")))


def main() -> int:
    parser = argparse.ArgumentParser(
        "bin/demo_files.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=INSTALLED_IN, help="holds models/; default: the ComfyUI of this pack"
    )
    folder = parser.parse_args().folder
    os.environ.setdefault("COMFYUI_PATH", str(folder if (folder / "main.py").is_file() else INSTALLED_IN))
    if not (folder / "models").is_dir():
        print(f"bin/demo_files.py: there is no folder models in {folder}; name the one that has it", file=sys.stderr)
        return 2
    from magicvideo.demo.model.demo_models import ADAPTOR, CHECKPOINT, MissingWeightsError, ensure_models

    try:
        ensure_models(folder)
    except (MissingWeightsError, ImportError) as error:
        print(f"bin/demo_files.py: {error}", file=sys.stderr)
        return 2
    models = folder / "models"
    print(f"In {models}: checkpoints/{CHECKPOINT} and magicvideo/{ADAPTOR}. In the graph, press R to see them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
