"""One motion that nobody here drew, to be learnt from a single clip and repeated on other subjects.

    bash bin/run demo/measure/animated_subject.py clip --folder .demo/animated/clips
    bash bin/run demo/measure/animated_subject.py show --adaptor .demo/animated/swelling.safetensors --sheet s.png

Between the two, bin/train learns it: docs/demo.md has the command, and what came of it.

The clip is an animated emoji of the npm package @lobehub/fluent-emoji-anim-1 (MIT): a blowfish that shrinks and swells.
What is judged is the size of the thing: how much it changes over a clip, and how well the change follows that of the
clip learnt from (correlation of the two, frame by frame).

Axes: f frames, h height, w width, c colours.
"""

import argparse
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from einops import rearrange, reduce
from PIL import Image

from magicvideo.demo.measure.motion_rule import thing
from magicvideo.demo.model.demo_models import CFG, STEPS
from magicvideo.demo.train.make_sprite_clips import write_video
from magicvideo.demo.world.sprite_scene import FRAMES, SIDE
from magicvideo.demo.world.subjects import BACKGROUNDS

PACKAGE = "@lobehub/fluent-emoji-anim-1@1.0.0"
EMOJI, CAPTION, BACKGROUND = "1f421", "a fish on a purple background", "purple"
ACROSS = 44  # pixels of the picture that the emoji's own square takes
PROMPTS = ("a heart on a blue background", "a star on a black background", "a cat on a pink background")
SEEDS = (50_001, 50_002)


def fetched(folder: Path, emoji: str) -> Path:
    """The animated emoji, taken out of the package, which is fetched once.  Raises KeyError for one that it lacks."""
    path = folder / f"{emoji}.webp"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.glob("*.tgz")):
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("*.tgz"))) as package:
            path.write_bytes(package.extractfile(f"package/assets/{emoji}.webp").read())
    return path


def on_background(path: Path, background: str) -> tuple[np.ndarray, float]:
    """The frames of an animated picture on a background, ``f h w c`` in 0..255, and the frame rate."""
    frames = []
    with Image.open(path) as animated:
        seconds = 0.0
        for number in range(animated.n_frames):
            animated.seek(number)
            picture = Image.new("RGBA", (SIDE, SIDE), (*BACKGROUNDS[background], 255))
            # Premultiplied while it shrinks, or the colour of what is transparent would show at the edges.
            small = animated.convert("RGBA").convert("RGBa").resize((ACROSS, ACROSS), Image.Resampling.LANCZOS)
            picture.alpha_composite(small.convert("RGBA"), ((SIDE - ACROSS) // 2, (SIDE - ACROSS) // 2))
            frames.append(np.asarray(picture.convert("RGB")))
            seconds += animated.info["duration"] / 1000
    return np.stack(frames), len(frames) / seconds


def sizes(frames: np.ndarray) -> np.ndarray:
    """f h w c -> f: the side of a square with as many pixels as the thing has."""
    return np.sqrt(reduce(thing(frames).astype(float), "f h w -> f", "sum"))


def make_clip(folder: Path, emoji: str, caption: str, background: str) -> None:
    """Writes the animated emoji on a background as a video, and its caption beside it."""
    frames, fps = on_background(fetched(folder.parent / "art", emoji), background)
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / f"{emoji}.mkv", frames, fps)
    (folder / f"{emoji}.txt").write_text(f"{caption}\n", encoding="utf-8")
    print(f"{folder / emoji}.mkv: {len(frames)} frames at {fps:.1f} frames a second")


def show(options: argparse.Namespace) -> None:
    """Samples each prompt with and without the adaptor, prints the figures and saves the strips."""
    from magicvideo.demo.measure.judge_motion import model_maker
    from magicvideo.demo.measure.stock_sampling import StockModel

    learnt, _ = on_background(fetched(options.folder.parent / "art", options.emoji), BACKGROUND)
    learnt = learnt[np.linspace(0, len(learnt) - 1, FRAMES).round().astype(int)]
    stock, rows = StockModel(options.checkpoint), [learnt]
    moving = model_maker(stock.model, options.adaptor, 0)(options.fps, FRAMES)
    found = {"learnt from": {"sizes": sizes(learnt).round(1).tolist()}}
    for prompt in PROMPTS:
        for seed in SEEDS:
            drawn = stock.pictures(prompt, seed, FRAMES, STEPS, CFG, moving)
            rows.append(drawn)
            follows = float(np.corrcoef(sizes(learnt), sizes(drawn))[0, 1])
            told = {"sizes": sizes(drawn).round(1).tolist(), "correlation": round(follows, 2)}
            found[f"{prompt}, seed {seed}"] = told
            print(prompt, seed, json.dumps(told), flush=True)
    if options.sheet:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        strips = [rearrange(row, "f h w c -> h (f w) c") for row in rows]
        Image.fromarray(np.concatenate(strips)).save(options.sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description="A motion from an animated emoji, learnt and repeated.")
    parser.add_argument("what", choices=("clip", "show"))
    parser.add_argument("--folder", type=Path, default=Path(".demo/animated/clips"))
    parser.add_argument("--emoji", default=EMOJI, help="code points, as the package names its files")
    parser.add_argument("--caption", default=CAPTION)
    demo = Path(".demo/models/checkpoints/magicvideo_demo.safetensors")
    parser.add_argument("--checkpoint", type=Path, default=demo)
    parser.add_argument("--adaptor", type=Path, help="without it, the image model alone")
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    if options.what == "clip":
        make_clip(options.folder, options.emoji, options.caption, BACKGROUND)
    else:
        show(options)


if __name__ == "__main__":
    main()
