"""Makes a short clip through a real ComfyUI server: text to video with the workflow that the pack ships."""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch

from host_server import PACK, HostError, HostServer, Prompt
from make_random_checkpoint import write_random
from prompt_edits import read_prompt, with_animated_picture, with_inputs, with_new_adaptors, with_text

BASE = PACK / ".demo"
WORKFLOW = PACK / "workflows" / "api" / "text_to_video.json"
CHECKPOINT = "magicvideo_random.safetensors"
NEWEST_HOST = PACK / ".hosts" / "0.30.0"
LOG_TAIL = 30


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/demo", description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a red balloon moving left, blue background")
    parser.add_argument("--seed", type=int, help="same seed, same clip; without it, one is drawn and shown")
    parser.add_argument("--frames", type=_positive, default=16)
    parser.add_argument("--fps", type=_rate, default=8.0, help="frames a second (default 8)")
    parser.add_argument("--output", type=Path, default=BASE / "output", help="folder (default .demo/output)")
    parser.add_argument("--size", type=_size, default=96, help="width and height in pixels (default 96)")
    parser.add_argument("--steps", type=_positive, default=20, help="sampling steps (default 20)")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 1 <= rate <= 120:
        raise argparse.ArgumentTypeError(f"must be from 1 to 120, got {rate}")
    return rate


def _size(text: str) -> int:
    size = int(text)
    if size < 64 or size % 8:
        raise argparse.ArgumentTypeError(f"must be a multiple of 8, 64 or more, got {size}")
    return size


def ensure_checkpoint() -> None:
    path = BASE / "models" / "checkpoints" / CHECKPOINT
    if not path.is_file():
        print("Writing a compact, randomly initialised model (once) ...", flush=True)
        write_random(path)


def filled_in(options: argparse.Namespace) -> Prompt:
    """The shipped workflow with the person's wishes and the demo's model in it."""
    prompt = with_new_adaptors(read_prompt(WORKFLOW), options.frames)
    prompt = with_text(prompt, options.prompt)
    prompt = with_inputs(prompt, ckpt_name=CHECKPOINT, seed=options.seed, noise_seed=options.seed, steps=options.steps)
    prompt = with_inputs(prompt, width=options.size, height=options.size, batch_size=options.frames)
    prompt = with_inputs(prompt, frames=options.frames, fps=options.fps)
    prompt = with_inputs(prompt, "SaveVideo", filename_prefix="magicvideo")
    return with_animated_picture(prompt, "magicvideo", options.fps)


def host_flags() -> tuple[str, ...]:
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return () if has_gpu else ("--cpu",)


def show(progress: str) -> None:
    if sys.stdout.isatty():
        print(f"\r  step {progress}   ", end="", flush=True)


def make_clip(options: argparse.Namespace) -> list[Path]:
    comfyui = Path(os.environ.get("COMFYUI_PATH") or NEWEST_HOST)
    server = HostServer(comfyui, BASE, options.output, host_flags())
    try:
        print("Starting ComfyUI ...", flush=True)
        with server:
            print(f"Sampling {options.frames} frames for {options.prompt!r}, seed {options.seed} ...", flush=True)
            finished = server.run(filled_in(options), seconds=3600, tell=show)
            return [server.output / name for name in finished.files()]
    except HostError:
        tail = server.log().splitlines()[-LOG_TAIL:]
        print(f"\nThe last lines of {server.log_path}:", *tail, sep="\n  ", file=sys.stderr)
        raise


def stop_in_order(number: int, frame: FrameType | None) -> None:
    """Turns the signal into an exception, so that the server is stopped on the way out."""
    sys.exit(128 + number)


def main() -> int:
    options = parse_arguments()
    if options.seed is None:
        options.seed = random.randrange(2**32)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_in_order)
    began = time.monotonic()
    try:
        ensure_checkpoint()
        files = make_clip(options)
    except HostError as error:
        print(f"\nbin/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print(f"\nDone in {time.monotonic() - began:.0f} s:", *files, sep="\n  ")
    print(
        "\nThe model is randomly initialised, so the picture is noise and does not follow the prompt. It shows that the"
        "\nwhole way works: load, adapt, sample, decode, save. A trained demo model is to come."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
