"""Drawn pictures for the templates whose model files the pack does not have: what they do, and no result of a model."""

import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ACROSS = 256
FRAMES, MILLISECONDS = 16, 125
INK, PAPER, LILAC, ORANGE = "#1b1530", "#f6f5fb", "#d9d2f7", "#e07a3f"
MODULE, XL = "motion module", "SDXL"


@dataclass(frozen=True)
class Drawing:
    """What stands above the drawing in two lines, and which frames on the strip see each other.

    ``together``: so many at a time, all of each other.  ``causal``: each sees the frames before it instead.  ``looks``:
    each sees these frames, and the one before it.  ``ring``: the clip ends where it begins, and so do its windows.
    """

    heading: str
    title: str
    together: int = FRAMES
    causal: bool = False
    looks: tuple[int, ...] | None = None
    ring: bool = False

    def seen(self, number: int) -> set[int]:
        """The frames that a frame sees."""
        if self.looks is not None:
            return {*self.looks, number - 1}
        if self.causal:
            return set(range(number))
        if self.ring:
            return {(number + place - self.together // 2) % FRAMES for place in range(self.together)}
        first = min(number // self.together * self.together, FRAMES - self.together)
        return set(range(first, first + self.together))

    def ball(self, number: int) -> tuple[float, float]:
        """Where the ball is, in pixels."""
        if self.ring:
            turn = 2 * math.pi * number / FRAMES
            return 128 + 70 * math.cos(turn), 131 + 34 * math.sin(turn)
        return 48 + 160 * number / (FRAMES - 1), 150 - 44 * math.sin(math.pi * number / (FRAMES - 1))


DRAWN = {
    "motion_module_text_to_video": Drawing(MODULE, "text to video"),
    "motion_module_fast": Drawing(MODULE, "in 6 steps"),
    "motion_module_video_to_video": Drawing(MODULE, "video to video"),
    "motion_module_long_video_to_video": Drawing(MODULE, "window by window", together=FRAMES // 2),
    "motion_module_loop": Drawing(MODULE, "a loop", together=FRAMES // 2, ring=True),
    "sdxl_video_to_video": Drawing(XL, "video to video, untrained", looks=(0,)),
    "sdxl_train_motion": Drawing(XL, "train a motion, then use it", causal=True),
}


def frame(drawing: Drawing, number: int) -> Image.Image:
    """A ball on its way; below it, the strip of frames with those that are looked at together."""
    picture = Image.new("RGB", (ACROSS, ACROSS), PAPER)
    draw = ImageDraw.Draw(picture)
    large, small = (ImageFont.load_default(size=size) for size in (24, 17))
    draw.text((ACROSS / 2, 26), drawing.heading, INK, large, anchor="mm")
    draw.text((ACROSS / 2, 54), drawing.title, INK, small, anchor="mm")
    draw.rounded_rectangle((28, 76, 228, 186), 8, LILAC, INK, 2)
    x, y = drawing.ball(number)
    draw.ellipse((x - 13, y - 13, x + 13, y + 13), ORANGE, INK, 2)
    seen = drawing.seen(number)
    for place in range(FRAMES):
        left = 16 + place * 14
        filled = ORANGE if place == number else (LILAC if place in seen else PAPER)
        draw.rectangle((left, 210, left + 12, 234), filled, INK)
    return picture


def draw_thumbnail(name: str, path: Path) -> Path:
    """Draws the picture of one of DRAWN, an animated WebP, as this file."""
    first, *rest = [frame(DRAWN[name], number) for number in range(FRAMES)]
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0, quality=80, method=6)
    return path
