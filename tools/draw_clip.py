"""Draws the clip that templates begin with where they draw a video anew, a boat on the sea.

    bash bin/run tools/draw_clip.py

`web/page.js` puts it among the input files of whoever opens such a template, so that nobody must look for one.
"""

import argparse
import math
from pathlib import Path

import av
from PIL import Image, ImageDraw

from magicvideo.tools.host_server import PACK

CLIP = PACK / "web" / "magicvideo_boat.mp4"
FRAMES, FPS = 32, 8
SIDE, FINER = 512, 2  # drawn twice as large, for smooth edges
HORIZON = 230
# Of a wave: where it is, its colour, how long and how high it is, how far it goes in a frame. From far to near.
WAVES = (
    (250, "#3f86b5", 120, 3, -4),
    (310, "#2f72a4", 170, 5, -8),
    (380, "#235f91", 240, 8, -12),
    (450, "#194c7a", 330, 11, -20),
)
SKY, HAZE = (94, 164, 214), (250, 222, 178)
HULL = ((-70, 0), (70, 0), (48, 34), (-48, 34))
SAIL, JIB = ((-4, -8), (-4, -150), (-66, -8)), ((6, -8), (6, -130), (58, -8))
CLOUDS = ((90, 70, 34), (330, 50, 42))


def frame(number: int) -> Image.Image:
    """One picture: sky, sun, hills, clouds, and the boat between the waves."""
    picture = Image.new("RGB", (SIDE * FINER, SIDE * FINER), "#f3d9b1")
    draw = ImageDraw.Draw(picture)
    for row in range(HORIZON * FINER):
        low = row / (HORIZON * FINER)
        colour = tuple(round(a + (b - a) * low) for a, b in zip(SKY, HAZE, strict=True))
        draw.line((0, row, SIDE * FINER, row), colour)
    ellipse(draw, 400, 120, 38, 38, "#fff2c4")
    for left, top, size in CLOUDS:
        for place in range(4):
            ellipse(draw, left + place * size * 0.7 + 0.8 * number, top + (place % 2) * 8, size, size * 0.5, "#fdf6ea")
    draw.polygon(scaled([(0, HORIZON), (70, 180), (150, 215), (230, 165), (320, HORIZON)]), "#6d8f7a")
    for place, (y, colour, length, high, speed) in enumerate(WAVES):
        if place == 2:
            boat(draw, number)
        crest = [(x, y + high * math.sin(2 * math.pi * (x - speed * number) / length)) for x in range(0, SIDE + 8, 8)]
        draw.polygon(scaled([(0, SIDE), *crest, (SIDE, SIDE)]), colour)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def boat(draw: ImageDraw.ImageDraw, number: int) -> None:
    """Draws the boat, which goes from left to right and rocks."""
    x, y = 110 + 9 * number, 352 + 6 * math.sin(0.5 * number)
    lean = 0.07 * math.sin(0.5 * number + 1)
    for shape, colour in ((HULL, "#7a3b22"), (SAIL, "#c8372d"), (JIB, "#f7f1e3")):
        turned = [
            (x + u * math.cos(lean) - v * math.sin(lean), y + u * math.sin(lean) + v * math.cos(lean)) for u, v in shape
        ]
        draw.polygon(scaled(turned), colour)


def scaled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points in the drawing's own, finer pixels."""
    return [(FINER * x, FINER * y) for x, y in points]


def ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, across: float, down: float, colour: str) -> None:
    """Draws an ellipse around x and y, so far across and down to each side."""
    draw.ellipse([FINER * v for v in (x - across, y - down, x + across, y + down)], colour)


def draw_clip(path: Path) -> None:
    """Writes the clip as an MP4 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_image(frame(number))))
        container.mux(stream.encode())


def main() -> None:
    argparse.ArgumentParser(description="Draws the clip that templates begin with.").parse_args()
    draw_clip(CLIP)
    print(f"{CLIP.relative_to(PACK)} ({CLIP.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
