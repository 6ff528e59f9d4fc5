"""Trains a motion on a folder of clips and writes an adaptor file that Load MagicVideo Adaptor takes.

  bash bin/train --base sd15.safetensors --clips my_clips --output waves.safetensors --steps 500

A clip's caption stands in a text file of the same name, or in caption.txt of its folder. Beside the adaptor, the folder
waves.run gets the state to resume from, the loss plot, sample clips and all numbers. Ctrl-C saves and stops; the same
command with --resume goes on.

Without clips, a motion module can teach:   --teacher v3_sd15_mm.ckpt --prompts prompts.txt
A MotionLoRA on one is trained by:          --train motion_lora --motion-module mm_sd_v15_v2.ckpt --clips my_clips

Width and height that are not given follow from the clips, and on a processor the steps are a few, to try things.
bash bin/train --help-all lists every option.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import pack  # noqa: F401 - makes the pack importable

# The options that matter first.
FIRST = ("base", "clips", "output", "resume", "steps", "width", "height", "learning_rate")


class HelpAll(argparse.Action):
    """Shows the help of every option, and ends."""

    def __init__(self, option_strings: list[str], dest: str, **how: object) -> None:
        super().__init__(option_strings, dest, nargs=0, **how)

    def __call__(self, *_: object) -> None:
        made = parser(every=True)
        made.print_help()
        made.exit()


def parser(every: bool = False) -> argparse.ArgumentParser:
    """Reads all options; its help shows those of ``FIRST``, or ``every`` one."""
    from magicvideo.adaptor_unet.training.settings_text import add_settings

    made = argparse.ArgumentParser(
        "bin/train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=None if every else "bin/train --base FILE --clips FOLDER --output FILE [OPTIONS]",
    )
    made.add_argument("--help-all", action=HelpAll, default=argparse.SUPPRESS, help="show every option and exit")
    files = made.add_argument_group("files")

    def rare(text: str) -> str:
        return text if every else argparse.SUPPRESS

    text = "Stable Diffusion checkpoint (1.x, 2.x, XL) to train for"
    files.add_argument("--base", required=True, type=Path, metavar="FILE", help=text)
    source = files.add_mutually_exclusive_group()
    source.add_argument("--clips", type=Path, metavar="FOLDER", help="clips: video files, gif, webp, folders of images")
    text = rare("shards written by --write-shards, in place of --clips")
    source.add_argument("--shards", type=Path, metavar="FOLDER", help=text)
    files.add_argument("--output", type=Path, metavar="FILE", help="adaptor file to write")
    files.add_argument("--resume", action="store_true", help="go on from the last saved state, if there is one")
    text = rare("TOML file of settings; options come before it")
    files.add_argument("--settings", type=Path, metavar="FILE", help=text)
    text = rare("encoded clips (default: cache beside the output)")
    files.add_argument("--cache", type=Path, metavar="FOLDER", help=text)
    text = rare("encode the clips, write shards, and end")
    files.add_argument("--write-shards", type=Path, metavar="FOLDER", help=text)
    files.add_argument("--tensorboard", action="store_true", help=rare("write TensorBoard's files too"))
    text = rare("motion module that teaches the adaptor, by clips that it samples from --prompts")
    files.add_argument("--teacher", type=Path, metavar="FILE", help=text)
    text = rare("MotionLoRA on the teacher, at that strength (default 1); may be said more than once")
    lora = {"type": lora_file, "action": "append", "default": []}
    files.add_argument("--teacher-lora", metavar="FILE[:STRENGTH]", **lora, help=text)
    text = rare("text file of what the teacher's clips show, a prompt a line")
    files.add_argument("--prompts", type=Path, metavar="FILE", help=text)
    text = rare("motion module for which --train motion_lora trains a MotionLoRA")
    files.add_argument("--motion-module", type=Path, metavar="FILE", help=text)
    add_settings(made, None if every else FIRST)
    return made


FILES = ("base", "clips", "shards", "output", "cache", "write_shards", "resume", "tensorboard")
FILES += ("teacher", "teacher_lora", "prompts", "motion_module")


def lora_file(text: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:STRENGTH``; a colon that no number follows belongs to the file's name."""
    file, _, strength = text.rpartition(":")
    try:
        return Path(file), float(strength)
    except ValueError:
        return Path(text), 1.0


def check_files(files: dict[str, Path | None]) -> None:
    """Raises ValueError for an input that is not there, before anything is loaded."""
    given = [(name, files[name]) for name in ("base", "clips", "shards", "teacher", "prompts", "motion_module")]
    for name, path in given + [("teacher_lora", path) for path, _ in files["teacher_lora"]]:
        if path is not None and not os.path.exists(path):
            raise ValueError(f"--{name.replace('_', '-')}: {path} is not there.")


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
    from tqdm.contrib.logging import logging_redirect_tqdm

    from magicvideo.adaptor_unet.training.settings import ALL_SETTINGS, RunSettings
    from magicvideo.adaptor_unet.training.settings_text import read_toml
    from magicvideo.adaptor_unet.training.terminal import LiveBar, preparing
    from magicvideo.adaptor_unet.training.training_error import TrainingError
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
        values = (read_toml(file) if file else {}) | chosen
        settings = RunSettings.from_values(values)
        check_files(files)
        with preparing("starting ComfyUI"):
            start_host()
            from magicvideo.trainer.command import TrainCommand
        with logging_redirect_tqdm(tqdm_class=LiveBar):
            files["teacher_lora"] = tuple(files["teacher_lora"])
            finished = TrainCommand(**files).train(settings, left_open=ALL_SETTINGS.keys() - values.keys())
        return 0 if finished else 130
    except (ValueError, TrainingError, ImportError) as error:
        print(f"bin/train: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
