"""Whether the demo's clips move as asked: 64 clips by ComfyUI's own sampler, judged by the rule of motion_rule.py.

    python demo/measure_motion.py --adaptor .demo/models/magicvideo/magicvideo_demo.safetensors --sheet sheet.png
    python demo/measure_motion.py                 without an adaptor: what chance gives
    python demo/measure_motion.py --adaptor narrow/adaptor.safetensors --narrow narrow/base.safetensors

Each subject moves in all four directions, over backgrounds from which it can be told, at three frame rates in turn. The
seeds are used for nothing else. The narrow network gives the same figures in a quarter of the time.
"""

import host_in_process  # isort: skip - first, because it puts the host on the path

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean

import numpy as np
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(host_in_process.PACK / "bin"))
import pack  # noqa: E402, F401

from captions import article  # noqa: E402
from magicvideo.adaptor_unet.checkpoint import load  # noqa: E402
from magicvideo.adaptor_unet.host.binding import bind  # noqa: E402
from magicvideo.adaptor_unet.host.hosted import hosted  # noqa: E402
from motion_rule import Way, change_of_thing, way  # noqa: E402
from narrow_unet import narrow_model  # noqa: E402
from sprite_painter import couples, load_sprites  # noqa: E402
from sprite_scene import FRAMES, SPEED, Couple  # noqa: E402
from stock_sampling import StockModel  # noqa: E402
from subjects import DIRECTIONS, SUBJECTS  # noqa: E402

FIRST_SEED = 70_000
FRAME_RATES = (8.0, 12.0, 16.0)
STEPS, CFG = 20, 3.0


@dataclass(frozen=True)
class Asked:
    """A clip to be sampled."""

    subject: str
    background: str
    direction: str
    fps: float
    seed: int

    @property
    def prompt(self) -> str:
        background = f"{article(self.background)} {self.background} background"
        return f"{article(self.subject)} {self.subject} moving {self.direction} on {background}"


@dataclass(frozen=True)
class Judged:
    """A sampled clip, ``f h w c`` in 0..255, and what the rule says of it."""

    asked: Asked
    frames: np.ndarray
    way: Way | None
    changed: float

    @property
    def right(self) -> bool:
        return self.way is not None and self.way.is_right(self.asked.direction)

    @property
    def along(self) -> float:
        return self.way.along(self.asked.direction) if self.way else 0.0


def asked_clips(allowed: list[Couple], count: int, first_seed: int = FIRST_SEED) -> list[Asked]:
    """Every subject before any comes again, and all directions, backgrounds and rates in turn."""
    rates, made = cycle(FRAME_RATES), []
    for number in range(count):
        subject = list(SUBJECTS)[number % len(SUBJECTS)]
        turn = number // len(SUBJECTS)
        direction = list(DIRECTIONS)[(number + turn) % len(DIRECTIONS)]
        colours = [colour for name, colour in allowed if name == subject]
        background = colours[(3 * number + turn) % len(colours)]
        made.append(Asked(subject, background, direction, next(rates), first_seed + number))
    return made


def judged(
    asked: list[Asked], stock: StockModel, model_for: Callable[[float], ModelPatcher], frames: int = FRAMES
) -> Iterator[Judged]:
    """Samples and judges one clip after the other; ``model_for(fps)`` gives the MODEL."""
    for clip in asked:
        drawn = stock.pictures(clip.prompt, clip.seed, frames, STEPS, CFG, model_for(clip.fps))
        yield Judged(clip, drawn, way(drawn), float(change_of_thing(drawn).mean()))


def figures(clips: list[Judged]) -> dict[str, object]:
    """What is reported: shares and means over all clips."""
    moving = [clip for clip in clips if clip.way is not None]
    by_rate = {fps: [clip for clip in clips if clip.asked.fps == fps] for fps in FRAME_RATES}
    return {
        "clips": len(clips),
        "right": sum(clip.right for clip in clips),
        "travel along the asked way, pixels": round(fmean(clip.along for clip in clips), 1),
        "asked travel, pixels": round(fmean(SPEED * (FRAMES - 1) / clip.asked.fps for clip in clips), 1),
        "scatter about the line, pixels": round(fmean(clip.way.scatter for clip in moving), 2) if moving else None,
        "travel by frame rate, pixels": {
            fps: round(fmean(clip.along for clip in of_rate), 1) for fps, of_rate in by_rate.items() if of_rate
        },
        "change of colours from frame 0, mean": round(fmean(clip.changed for clip in clips), 3),
        "change of colours from frame 0, most": round(max(clip.changed for clip in clips), 3),
    }


def save_sheet(clips: list[Judged], path: Path, every: int = 1) -> None:
    """Each clip a row, every so many frames; a bar at its left is green when the way is right, red when not."""
    rows = []
    for clip in clips:
        bar = np.zeros((clip.frames.shape[1], 6, 3), np.uint8)
        bar[:] = (40, 170, 70) if clip.right else (210, 40, 40)
        rows.append(np.concatenate([bar, rearrange(clip.frames[::every], "f h w c -> h (f w) c")], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = (len(rows) + 1) // 2
    columns = [np.concatenate(rows[:half]), np.concatenate([*rows[half:], *[rows[0] * 0] * (2 * half - len(rows))])]
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)


def model_maker(image_model: ModelPatcher, adaptor: Path | None) -> Callable[[float], ModelPatcher]:
    """The image model, or the video model at a frame rate."""
    if adaptor is None:
        return lambda fps: image_model
    moving = hosted(load(adaptor))
    return lambda fps: bind(image_model, moving, fps=fps)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures whether clips move as asked.")
    demo = Path(".demo/models/checkpoints/magicvideo_demo.safetensors")
    parser.add_argument("--checkpoint", type=Path, default=demo, help="text encoder, autoencoder and image network")
    parser.add_argument("--adaptor", type=Path, help="without it, frames are sampled side by side")
    parser.add_argument("--narrow", type=Path, help="narrow weights in place of the checkpoint's image network")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--sheet", type=Path, help="PNG or WebP of all frames")
    parser.add_argument("--every", type=int, default=1, help="show every so many frames on the sheet")
    options = parser.parse_args()
    stock = StockModel(options.checkpoint)
    image_model = narrow_model(load_file(options.narrow)) if options.narrow else stock.model
    asked = asked_clips(couples(load_sprites(options.sprites)), options.count, options.first_seed)
    clips = []
    for clip in judged(asked, stock, model_maker(image_model, options.adaptor)):
        clips.append(clip)
        found = f"{clip.way.x:+6.1f} {clip.way.y:+6.1f}, scatter {clip.way.scatter:.1f}" if clip.way else "nothing seen"
        print(f"{'right' if clip.right else 'WRONG'}  {found}  {clip.asked.fps:g} fps  {clip.asked.prompt}", flush=True)
    print(json.dumps(figures(clips), indent=1))
    if options.sheet:
        save_sheet(clips, options.sheet, options.every)


if __name__ == "__main__":
    main()
