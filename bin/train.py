"""Trains a motion on a folder of clips and writes an adaptor file that Load MagicVideo Adaptor takes.

  bash bin/train --base sd15.safetensors --clips my_clips --output waves.safetensors --steps 500

A clip's caption stands in a text file of the same name, or in caption.txt of its folder. Beside the adaptor, the folder
waves.run gets the state to resume from, the loss plot, sample clips and all numbers. Ctrl-C saves and stops; the same
command with --resume goes on.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import pack  # noqa: F401 - makes the pack importable


def parser() -> argparse.ArgumentParser:
    from magicvideo.adaptor_unet.training.settings_text import add_settings

    made = argparse.ArgumentParser(
        "bin/train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = made.add_argument_group("files")
    files.add_argument("--base", required=True, type=Path, metavar="FILE", help="SD1.5 checkpoint to train for")
    source = files.add_mutually_exclusive_group(required=True)
    source.add_argument("--clips", type=Path, metavar="FOLDER", help="clips: video files, gif, webp, folders of images")
    source.add_argument("--shards", type=Path, metavar="FOLDER", help="shards written by --write-shards")
    files.add_argument("--output", type=Path, metavar="FILE", help="adaptor file to write")
    files.add_argument("--settings", type=Path, metavar="FILE", help="TOML file of settings; options come before it")
    files.add_argument("--cache", type=Path, metavar="FOLDER", help="encoded clips (default: cache beside the output)")
    files.add_argument("--write-shards", type=Path, metavar="FOLDER", help="encode the clips, write shards, and end")
    files.add_argument("--resume", action="store_true", help="go on from the last saved state, if there is one")
    files.add_argument("--tensorboard", action="store_true", help="write TensorBoard's files too")
    add_settings(made)
    return made


FILES = ("base", "clips", "shards", "output", "cache", "write_shards", "resume", "tensorboard")


def check_files(files: dict[str, Path | None]) -> None:
    """Raises ValueError for an input that is not there, before anything is loaded."""
    for name in ("base", "clips", "shards"):
        if files[name] is not None and not os.path.exists(files[name]):
            raise ValueError(f"--{name}: {files[name]} is not there.")


def main() -> int:
    """The exit code: 0 when all is done, 130 when Ctrl-C stopped it, 2 with a sentence when it cannot be done."""
    try:
        return run()
    except KeyboardInterrupt:  # while something is loaded or encoded, or the second one while a step is computed
        print(
            "\nbin/train: stopped. Clips that are encoded stay in the cache, and what was saved stays too; the same "
            "command goes on, with --resume where training had begun.",
            file=sys.stderr,
        )
        return 130


def run() -> int:
    from magicvideo.adaptor_unet.training.loop import TrainingError
    from magicvideo.adaptor_unet.training.settings import RunSettings
    from magicvideo.adaptor_unet.training.settings_text import read_toml
    from magicvideo.tools.host_in_process import start_host

    given = parser()
    chosen = vars(given.parse_args())
    files = {name: chosen.pop(name) for name in FILES}
    if not files["output"]:
        if not files["write_shards"]:
            given.error("--output FILE is needed: where the adaptor is to be written")
        files["output"] = files["write_shards"] / "adaptor.safetensors"  # only the cache goes beside it
    file = chosen.pop("settings")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("magicvideo").setLevel(logging.INFO)
    try:
        settings = RunSettings.from_values((read_toml(file) if file else {}) | chosen)
        check_files(files)
        start_host()
        from magicvideo.trainer.command import TrainCommand

        return 0 if TrainCommand(**files).train(settings) else 130
    except (ValueError, TrainingError, ImportError) as error:
        print(f"bin/train: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
