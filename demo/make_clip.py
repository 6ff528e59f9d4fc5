"""Makes a short clip of the demo model through a real ComfyUI server, with the text-to-video workflow of the pack."""

import argparse
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch

from magicvideo.demo.model.demo_models import (
    ADAPTOR,
    CFG,
    CHECKPOINT,
    SAMPLER,
    SCHEDULER,
    STEPS,
    MissingWeightsError,
    ensure_models,
)
from magicvideo.demo.wishes import BASE, frames_in_words, parse_arguments, remarks
from magicvideo.demo.world.sprite_scene import SIDE
from magicvideo.demo.world.words import PromptError
from magicvideo.tools.host_in_process import find_host
from magicvideo.tools.host_server import PACK, HostError, HostServer, Prompt
from magicvideo.tools.prompt_edits import (
    read_prompt,
    with_adaptor_file,
    with_animated_picture,
    with_enlarged,
    with_inputs,
    with_text,
)

WORKFLOW = PACK / "workflows" / "api" / "text_to_video.json"
LOG_TAIL = 30
ENLARGED = 512  # pixels
SAMPLING = {"sampler_name": SAMPLER, "scheduler": SCHEDULER, "steps": STEPS, "cfg": CFG}


def filled_in(options: argparse.Namespace) -> Prompt:
    """The shipped workflow with the person's wishes and the demo's model in it."""
    prompt = with_adaptor_file(read_prompt(WORKFLOW), ADAPTOR)
    prompt = with_text(prompt, options.prompt)
    prompt = with_inputs(prompt, ckpt_name=CHECKPOINT, seed=options.seed, **SAMPLING)
    prompt = with_inputs(prompt, width=SIDE, height=SIDE, batch_size=options.frames, fps=options.fps)
    prompt = with_inputs(prompt, "SaveVideo", filename_prefix="magicvideo")
    return with_animated_picture(with_enlarged(prompt, ENLARGED), "magicvideo", options.fps)


def host_flags() -> tuple[str, ...]:
    """Options of ComfyUI for this machine."""
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return () if has_gpu else ("--cpu",)


def show(progress: str) -> None:
    """Shows how far the sampler is, where there is a terminal."""
    if sys.stdout.isatty():
        print(f"\r  step {progress}   ", end="", flush=True)


def make_clip(options: argparse.Namespace) -> list[Path]:
    """Starts a server, samples the clip, and gives the files.  Raises HostError when that fails."""
    server = HostServer(find_host(), BASE, options.output, host_flags())
    try:
        print("Starting ComfyUI ...", flush=True)
        with server:
            print(
                f"Sampling {frames_in_words(options.frames)} for {options.prompt!r}, seed {options.seed} ...",
                flush=True,
            )
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
        for remark in remarks(options):
            print(remark, end="\n\n")
        ensure_models(BASE)
        files = make_clip(options)
    except (PromptError, MissingWeightsError) as error:
        print(f"bin/demo: {error}", file=sys.stderr)
        return 2
    except HostError as error:
        print(f"\nbin/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print(f"\nDone in {time.monotonic() - began:.0f} s; the WebP repeats by itself:", *files, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
