"""Whether the demo's clips move as asked: 64 clips by ComfyUI's own sampler, judged by the rule of motion_rule.py.

    bash bin/run demo/measure/judge_motion.py --adaptor ADAPTOR.safetensors --sheet sheet.png
    bash bin/run demo/measure/judge_motion.py           without an adaptor: what chance gives
    bash bin/run demo/measure/judge_motion.py --adaptor narrow/adaptor.safetensors --narrow narrow/base.safetensors
    bash bin/run demo/measure/judge_motion.py --adaptor ... --frames 64 --fps 32 --chunk 8     in causal windows
    bash bin/run demo/measure/judge_motion.py --adaptor ... --frames 8 --fps 16 --extend-to 24 clips that are extended
    bash bin/run demo/measure/judge_motion.py --adaptor ... --frames 256 --still --count 4     whether long clips fade

Each subject moves in all four directions, over backgrounds from which it can be told, at three frame rates in turn. The
seeds are used for nothing else. The narrow network gives the same figures in a quarter of the time.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import get_args

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file

from magicvideo.adaptor_unet.checkpoint import load
from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import Order, bind
from magicvideo.demo.measure.motion_rule import (
    JUMP,
    SMOOTH,
    Drift,
    Way,
    change_of_thing,
    drift,
    speed,
    turned_back,
    way,
    worst_step,
)
from magicvideo.demo.measure.stock_sampling import StockModel, empty_latents
from magicvideo.demo.model.demo_models import CFG, STEPS
from magicvideo.demo.model.narrow_unet import narrow_model
from magicvideo.demo.model.small_autoencoder import as_bytes
from magicvideo.demo.world.captions import article
from magicvideo.demo.world.sprite_painter import Painter, couples, load_sprites
from magicvideo.demo.world.sprite_scene import FRAMES, SIDE, SIZE, SPEED, Couple, Scene
from magicvideo.demo.world.subjects import DIRECTIONS, SUBJECTS

FIRST_SEED = 70_000
FRAME_RATES = (8.0, 12.0, 16.0)


@dataclass(frozen=True)
class Asked:
    """A clip to be sampled."""

    subject: str
    background: str
    direction: str
    fps: float
    seed: int
    still: bool = False

    @property
    def prompt(self) -> str:
        """The words that ask for it; of a still one, they say nothing of motion."""
        background = f"{article(self.background)} {self.background} background"
        moving = "" if self.still else f"moving {self.direction} "
        return f"{article(self.subject)} {self.subject} {moving}on {background}"


@dataclass(frozen=True)
class Lengths:
    """``frames`` of a clip when it's sampled, and to how many it is then extended, if to more."""

    frames: int = FRAMES
    extended: int = 0


@dataclass(frozen=True)
class Judged:
    """A sampled clip, ``f h w c`` in 0..255, and what the rule says of it; ``given``: frames before it was extended."""

    asked: Asked
    frames: np.ndarray
    given: int = 0

    @cached_property
    def way(self) -> Way | None:
        """The way of the thing; None when too few frames show one."""
        return way(self.frames)

    @cached_property
    def changed(self) -> float:
        """How far the colours of the thing are from those in frame 0, mean over the frames."""
        return float(change_of_thing(self.frames).mean())

    @cached_property
    def worst_step(self) -> float:
        """How far the worst step is off the median step, in pixels."""
        return worst_step(self.frames)

    @cached_property
    def drift(self) -> Drift:
        """The end of the clip beside its beginning."""
        return drift(self.frames)

    @cached_property
    def speed(self) -> float | None:
        """Pixels a frame as asked, where the thing is seen whole for long enough."""
        return speed(self.frames, self.asked.direction)

    @property
    def turned_back(self) -> float:
        """The most that the thing ever went back, in pixels."""
        return turned_back(self.frames, self.asked.direction)

    @property
    def right(self) -> bool:
        """Whether the thing goes the way that was asked for."""
        return self.way is not None and self.way.is_right(self.asked.direction)

    @property
    def along(self) -> float:
        """Pixels from the first frame to the last, in the direction that was asked for."""
        return self.way.along(self.asked.direction) if self.way else 0.0

    @cached_property
    def along_after(self) -> float:
        """Pixels from the last given frame on, in the direction that was asked for."""
        added = way(self.frames[self.given - 1 :])
        return added.along(self.asked.direction) if added else 0.0


def asked_clips(
    allowed: list[Couple], count: int, rates: Sequence[float] = FRAME_RATES, first_seed: int = FIRST_SEED
) -> list[Asked]:
    """Every subject before any comes again, and all directions, backgrounds and rates in turn."""
    turns, made = cycle(rates), []
    for number in range(count):
        subject = list(SUBJECTS)[number % len(SUBJECTS)]
        turn = number // len(SUBJECTS)
        direction = list(DIRECTIONS)[(number + turn) % len(DIRECTIONS)]
        colours = [colour for name, colour in allowed if name == subject]
        background = colours[(3 * number + turn) % len(colours)]
        made.append(Asked(subject, background, direction, next(turns), first_seed + number))
    return made


def sampled(
    asked: list[Asked],
    stock: StockModel,
    model_for: Callable[[float, int], ModelPatcher],
    lengths: Lengths,
    beside: int = 1,
    cfg: float = CFG,
) -> Iterator[Judged]:
    """Clip after clip of each frame rate, ``beside`` in a batch; ``model_for(fps, frames)`` gives the MODEL."""
    for fps in sorted({clip.fps for clip in asked}):
        of_rate = [clip for clip in asked if clip.fps == fps]
        for first in range(0, len(of_rate), beside):
            clips = of_rate[first : first + beside]
            prompts, seeds = [clip.prompt for clip in clips], [clip.seed for clip in clips]
            start = empty_latents(lengths.frames * len(clips))
            latents = stock.latents(prompts, seeds, start, STEPS, cfg, model_for(fps, lengths.frames))
            given = 0
            if lengths.extended > lengths.frames:
                given = lengths.frames
                start = expand_latent({"samples": latents}, lengths.extended, given, keep_given=True)
                seeds = [seed + 1 for seed in seeds]
                latents = stock.latents(prompts, seeds, start, STEPS, cfg, model_for(fps, lengths.extended))
            for clip, own in zip(clips, latents.chunk(len(clips)), strict=True):
                yield Judged(clip, as_bytes(stock.decoded(own)).numpy(), given)


def real(asked: list[Asked], stock: StockModel, painter: Painter, frames: int) -> Iterator[Judged]:
    """The clips that are asked for as they are drawn, through the autoencoder: what no model can be better than."""
    for clip in asked:
        dx, dy = DIRECTIONS[clip.direction]
        way = SPEED * (frames - 1) / clip.fps / 2
        scene = Scene(
            clip.subject, clip.background, clip.direction, SIZE, SIDE / 2 - dx * way, SIDE / 2 - dy * way, clip.fps
        )
        pixels = torch.from_numpy(painter.clip(scene, frames)).float() / 255
        yield Judged(clip, as_bytes(stock.decoded(stock.encoded(pixels))).numpy())


def figures(clips: list[Judged]) -> dict[str, object]:
    """What is reported of some clips, by name: shares and means over all of them."""
    moving = [clip for clip in clips if clip.way is not None]
    rates = sorted({clip.asked.fps for clip in clips})
    by_rate = {fps: [clip for clip in clips if clip.asked.fps == fps] for fps in rates}
    steps = len(clips[0].frames) - 1
    speeds = {fps: [steps * c.speed for c in of_rate if c.speed is not None] for fps, of_rate in by_rate.items()}
    speeds = {fps: found for fps, found in speeds.items() if found}
    added = {}
    if steps >= 2 * FRAMES:
        faded = [clip.drift for clip in clips]
        added["sharpness of the last 16 frames, of the first ones', mean"] = round(fmean(x.sharpness for x in faded), 3)
        added["sharpness of the last 16 frames, least"] = round(min(x.sharpness for x in faded), 3)
        added["colours of the last 16 frames from the first ones', mean"] = round(fmean(x.colours for x in faded), 3)
        added["colours of the last 16 frames, most"] = round(max(x.colours for x in faded), 3)
    if clips[0].given:
        added["travel of the added frames, pixels"] = round(fmean(clip.along_after for clip in clips), 1)
        added["clips that go on by a pixel or more"] = sum(clip.along_after >= 1 for clip in clips)
    return {
        "clips": len(clips),
        "right": sum(clip.right for clip in clips),
        f"no step off by more than {SMOOTH:g} pixels": sum(clip.worst_step <= SMOOTH for clip in clips),
        f"a step off by more than {JUMP:g} pixels": sum(clip.worst_step > JUMP for clip in clips),
        "worst step off by, pixels, median": round(median(clip.worst_step for clip in clips), 2),
        "worst step off by, pixels, most": round(max(clip.worst_step for clip in clips), 1),
        "travel along the asked way, pixels": round(fmean(clip.along for clip in clips), 1),
        "asked travel, pixels": round(fmean(SPEED * steps / clip.asked.fps for clip in clips), 1),
        "scatter about the line, pixels": round(fmean(clip.way.scatter for clip in moving), 2) if moving else None,
        "travel by frame rate, pixels": {
            fps: round(fmean(clip.along for clip in of_rate), 1) for fps, of_rate in by_rate.items()
        },
        "speed of things that are seen whole, by frame rate, pixels in as many frames": {
            fps: round(fmean(found), 1) for fps, found in speeds.items()
        },
        "its standard deviation from clip to clip, pixels": {
            fps: round(pstdev(found), 1) for fps, found in speeds.items()
        },
        "turned back, pixels, mean": round(fmean(clip.turned_back for clip in clips), 1),
        "turned back, pixels, most": round(max(clip.turned_back for clip in clips), 1),
        "change of colours from frame 0, mean": round(fmean(clip.changed for clip in clips), 3),
        "change of colours from frame 0, most": round(max(clip.changed for clip in clips), 3),
        **added,
    }


def save_sheet(clips: list[Judged], path: Path, every: int = 1) -> None:
    """Saves a picture of all clips: each is a row of every so many frames.

    A bar at its left is green when the way is right, red when not.
    """
    rows = []
    for clip in clips:
        bar = np.zeros((clip.frames.shape[1], 6, 3), np.uint8)
        bar[:] = (40, 170, 70) if clip.right else (210, 40, 40)
        rows.append(np.concatenate([bar, rearrange(clip.frames[::every], "f h w c -> h (f w) c")], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = (len(rows) + 1) // 2
    columns = [np.concatenate(rows[:half]), np.concatenate([*rows[half:], *[rows[0] * 0] * (2 * half - len(rows))])]
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)


def model_maker(
    image_model: ModelPatcher, adaptor: Path | None, window: int, **order: object
) -> Callable[[float, int], ModelPatcher]:
    """What gives the MODEL for a frame rate and a clip length: the image model, or the video model of an adaptor.

    In causal windows of so many frames, if ``window`` is not 0.  ``order`` goes to the motion: the order in which
    frames are sampled.
    """
    if window:
        image_model = with_causal_windows(image_model, window)
    if adaptor is None:
        return lambda fps, frames: image_model
    moving = hosted(load(adaptor))
    return lambda fps, frames: bind(image_model, moving, fps=fps, frames_per_clip=frames, **order)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures whether clips move as asked.")
    demo = Path(".demo/models/checkpoints/magicvideo_demo.safetensors")
    parser.add_argument("--checkpoint", type=Path, default=demo, help="text encoder, autoencoder and image network")
    parser.add_argument("--adaptor", type=Path, help="without it, frames are sampled side by side")
    parser.add_argument("--narrow", type=Path, help="narrow weights in place of the checkpoint's image network")
    parser.add_argument(
        "--still", action="store_true", help="ask for no motion, so that long clips stay in the picture"
    )
    parser.add_argument("--cfg", type=float, default=CFG, help="guidance")
    parser.add_argument("--later-cfg", type=float, default=0.0, help="of frames that follow finished ones; 0 as --cfg")
    parser.add_argument("--history-noise", type=float, default=0.0, help="of history guidance; 0 for none")
    parser.add_argument("--real", action="store_true", help="judge real clips through the autoencoder instead")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--extend-to", type=int, default=0, help="frames to which each clip is extended afterwards")
    parser.add_argument("--chunk", type=int, default=0, help="frames of a causal window; 0 for none (default)")
    parser.add_argument("--order", choices=get_args(Order), default="auto", help="in which frames are sampled")
    parser.add_argument("--at-once", type=int, default=1, help="frames at once in the order frame by frame")
    parser.add_argument("--beside", type=int, default=1, help="clips in a batch, which takes less time")
    parser.add_argument("--fps", type=float, nargs="+", default=FRAME_RATES)
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--sheet", type=Path, help="PNG or WebP of all frames")
    parser.add_argument("--every", type=int, default=1, help="show every so many frames on the sheet")
    options = parser.parse_args()
    stock = StockModel(options.checkpoint)
    image_model = narrow_model(load_file(options.narrow)) if options.narrow else stock.model
    sprites = load_sprites(options.sprites)
    asked = asked_clips(couples(sprites), options.count, options.fps, options.first_seed)
    asked = [replace(clip, still=options.still) for clip in asked]
    lengths, clips = Lengths(options.frames, options.extend_to), []
    order = {"order": options.order, "chunk": options.at_once}
    order |= {"later_cfg": options.later_cfg, "history_noise": options.history_noise}
    maker = model_maker(image_model, options.adaptor, options.chunk, **order)
    made = sampled(asked, stock, maker, lengths, options.beside, options.cfg)
    for clip in real(asked, stock, Painter(sprites), options.frames) if options.real else made:
        clips.append(clip)
        found = f"{clip.way.x:+6.1f} {clip.way.y:+6.1f}, scatter {clip.way.scatter:.1f}" if clip.way else "nothing seen"
        found += f", worst step off by {clip.worst_step:4.1f}"
        print(f"{'right' if clip.right else 'WRONG'}  {found}  {clip.asked.fps:g} fps  {clip.asked.prompt}", flush=True)
    print(json.dumps(figures(clips), indent=1))
    if options.sheet:
        save_sheet(clips, options.sheet, options.every)


if __name__ == "__main__":
    main()
