"""Drawn pictures for the templates whose model files the pack does not have: what they do, and no result of a model."""

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ACROSS = 256
FRAMES, MILLISECONDS = 16, 125
INK, PAPER, LILAC, ORANGE = "#1b1530", "#f6f5fb", "#d9d2f7", "#e07a3f"
# What stands above the drawing, and how many of the frames on the strip see each other at once.
DRAWN = {
    "motion_module_text_to_video": ("text to video", FRAMES),
    "motion_module_fast": ("in 6 steps", FRAMES),
    "motion_module_video_to_video": ("video to video", FRAMES),
    "motion_module_long_video_to_video": ("window by window", FRAMES // 2),
}


def frame(title: str, seen: int, number: int) -> Image.Image:
    """A ball on its way; below it, the strip of frames with those that are looked at together."""
    picture = Image.new("RGB", (ACROSS, ACROSS), PAPER)
    draw = ImageDraw.Draw(picture)
    large, small = (ImageFont.load_default(size=size) for size in (24, 17))
    draw.text((ACROSS / 2, 26), "motion module", INK, large, anchor="mm")
    draw.text((ACROSS / 2, 54), title, INK, small, anchor="mm")
    draw.rounded_rectangle((28, 76, 228, 186), 8, LILAC, INK, 2)
    x, y = 48 + 160 * number / (FRAMES - 1), 150 - 44 * math.sin(math.pi * number / (FRAMES - 1))
    draw.ellipse((x - 13, y - 13, x + 13, y + 13), ORANGE, INK, 2)
    first = min(number // seen * seen, FRAMES - seen)
    for place in range(FRAMES):
        left = 16 + place * 14
        filled = ORANGE if place == number else (LILAC if first <= place < first + seen else PAPER)
        draw.rectangle((left, 210, left + 12, 234), filled, INK)
    return picture


def draw_thumbnail(name: str, folder: Path) -> Path:
    """Draws the picture of one of DRAWN, an animated WebP under the name that the page asks for."""
    title, seen = DRAWN[name]
    first, *rest = [frame(title, seen, number) for number in range(FRAMES)]
    path = folder / f"{name}.jpg"
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0, quality=80, method=6)
    return path
