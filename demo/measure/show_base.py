"""A sheet of what the image network draws: every subject in a row, several seeds, by ComfyUI's own sampler.

    bash bin/run demo/measure/show_base.py .demo/models/checkpoints/magicvideo_demo.safetensors --output sheet.png

Directions and backgrounds take turns; the prompts stand beside the rows.
"""

import argparse
from itertools import cycle
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw

from magicvideo.demo.measure.stock_sampling import StockModel
from magicvideo.demo.world.captions import article
from magicvideo.demo.world.sprite_painter import couples, load_sprites
from magicvideo.demo.world.subjects import DIRECTIONS, SUBJECTS

ENLARGED = 2
MARGIN = 260


def prompts(sprites_folder: Path) -> list[str]:
    """A prompt for each subject, only with backgrounds that it can be told from."""
    allowed = couples(load_sprites(sprites_folder))
    turns = cycle(DIRECTIONS)
    rows = []
    for number, name in enumerate(SUBJECTS):
        colours = [colour for subject, colour in allowed if subject == name]
        colour = colours[number % len(colours)]
        rows.append(f"{article(name)} {name} moving {next(turns)} on {article(colour)} {colour} background")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws every subject with several seeds.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path, default=Path(".demo/output/base.png"))
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    options = parser.parse_args()
    model, rows = StockModel(options.checkpoint), []
    for prompt in prompts(options.sprites):
        drawn = model.pictures(prompt, options.first_seed, options.seeds, options.steps, options.cfg)
        strip = Image.fromarray(rearrange(drawn, "b h w c -> h (b w) c"))
        strip = strip.resize((strip.width * ENLARGED, strip.height * ENLARGED), Image.Resampling.NEAREST)
        row = Image.new("RGB", (strip.width + MARGIN, strip.height), "white")
        row.paste(strip, (MARGIN, 0))
        ImageDraw.Draw(row).text((4, strip.height // 2), prompt, fill="black")
        rows.append(np.asarray(row))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
