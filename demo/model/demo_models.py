"""The demo model's files in ComfyUI's folders, written from the small weights that are shipped, and how it is sampled.

``bash bin/run demo/model/demo_models.py FOLDER`` writes them by hand; FOLDER holds ComfyUI's ``models/``.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from magicvideo.demo.model.make_checkpoint import BASE, VAE, WEIGHTS, write_demo_checkpoint
from magicvideo.demo.model.padding import pad_adaptor_file

CHECKPOINT = ADAPTOR = "magicvideo_demo.safetensors"
MOTION = WEIGHTS / "motion.safetensors"
# How the demo's clips are sampled, wherever they are.  Chosen with seeds that the direction test does not use.
SAMPLER, SCHEDULER = "dpmpp_2m", "karras"
STEPS, CFG = 20, 2.0


class MissingWeightsError(FileNotFoundError):
    """The weights that the demo's files are written from are not there; the message says where they are."""


def ensure_models(base_directory: Path) -> None:
    """Writes checkpoint and adaptor into a ComfyUI base directory where they are missing or older than the weights."""
    models = base_directory / "models"
    ensure_file(models / "checkpoints" / CHECKPOINT, [BASE, VAE], write_demo_checkpoint)
    ensure_file(models / "magicvideo" / ADAPTOR, [MOTION], partial(pad_adaptor_file, MOTION))


def ensure_file(path: Path, sources: list[Path], write: Callable[[Path], None]) -> None:
    """Has ``path`` written when it is missing or older than its sources.

    Raises MissingWeightsError when one of these is not there.
    """
    for source in sources:
        if not source.is_file():
            raise MissingWeightsError(
                f"{source} is not there. A clone of the repository has it, the registry's package not."
            )
    newest = max(source.stat().st_mtime for source in sources)
    if not path.is_file() or path.stat().st_mtime < newest:
        print(f"Writing {path.name} into {path.parent} ...", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the demo's checkpoint and adaptor where they are missing.")
    parser.add_argument("folder", type=Path, help="the folder that holds ComfyUI's models/")
    options = parser.parse_args()
    ensure_models(options.folder)


if __name__ == "__main__":
    main()
