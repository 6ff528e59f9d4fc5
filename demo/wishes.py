"""What a person may ask of bin/demo, checked before anything is fetched; only the standard library is needed."""

import argparse
from pathlib import Path

from magicvideo.demo.world.sprite_scene import FRAME_RATES, FRAMES
from magicvideo.demo.world.words import check_prompt
from magicvideo.tools.host_in_process import PACK

BASE = PACK / ".demo"
PROMPT = "a rocket moving left on a blue background"
FPS = 12.0
# What ComfyUI's KSampler and Empty Latent Image take.
MOST_SEEDS, MOST_FRAMES = 2**64, 4096
# Minutes of sampling on a processor of two cores; each frame takes as long as any other.
MINUTES_A_CLIP = 2


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The options of bin/demo, from these words or the command line's."""
    parser = argparse.ArgumentParser(
        prog="bin/demo", description="Makes a short clip of the demo model through a real ComfyUI server."
    )
    parser.add_argument("prompt", nargs="?", default=PROMPT, help=f"what to show (default: {PROMPT})")
    parser.add_argument("--seed", type=_seed, help="same seed, same clip; without it, one is drawn and shown")
    parser.add_argument("--frames", type=_frames, default=FRAMES, help=f"length of the clip (default {FRAMES})")
    parser.add_argument("--fps", type=_rate, default=FPS, help=f"frames a second (default {FPS:g})")
    parser.add_argument("--output", type=Path, default=BASE / "output", help="folder (default .demo/output)")
    return parser.parse_args(words)


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MOST_SEEDS - 1}, got {number}")
    return number


def _frames(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_FRAMES}, got {number}")
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 1 <= rate <= 120:
        raise argparse.ArgumentTypeError(f"must be from 1 to 120, got {rate}")
    return rate


def remarks(options: argparse.Namespace) -> list[str]:
    """What a person may want to know before.  Raises PromptError for a prompt that makes no sense to the model."""
    told = check_prompt(options.prompt)
    if not min(FRAME_RATES) <= options.fps <= max(FRAME_RATES):
        rates = f"{min(FRAME_RATES):g} to {max(FRAME_RATES):g}"
        told.append(f"The demo model has seen {rates} frames a second; at {options.fps:g} the speed may be off.")
    return told


def frames_in_words(frames: int) -> str:
    """A number of frames in words."""
    return "1 frame" if frames == 1 else f"{frames} frames"


def how_long(frames: int, fetched: bool) -> str:
    """What a person is told at the start."""
    minutes = max(1, round(MINUTES_A_CLIP * frames / FRAMES))
    sampling = (
        f"{frames_in_words(frames)} take{'s' if frames == 1 else ''} about {minutes} min on a processor, less on a GPU"
    )
    if fetched:
        return f"{sampling}."
    return f"First ComfyUI and its packages are fetched: several GB, once. Then {sampling}."
