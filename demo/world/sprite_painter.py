"""Draws scenes as pictures, from the sprites of draw_sprites.py.

Axes: h height, w width, c colours, f frames; s and t are 2: pictures are drawn at twice their size and averaged.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange, reduce
from PIL import Image

from magicvideo.demo.world.sprite_scene import FRAMES, SIDE, TRAIL, TRAIL_GAP, Couple, Scene, draw_scene
from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS

SUPERSAMPLING = 2
# The least share of a sprite that must stand out from its background, and by how much of 255 in some colour.
LEAST_SHOWN, LEAST_DIFFERENCE = 0.55, 70

Sprites = dict[str, Image.Image]


def load_sprites(folder: Path) -> Sprites:
    """The pictures of all subjects, by name.

    Raises FileNotFoundError with the command to run when they have not been drawn.
    """
    missing = [name for name in SUBJECTS if not (folder / f"{name}.png").is_file()]
    if missing:
        raise FileNotFoundError(
            f"no sprite of {', '.join(missing)} in {folder}; "
            f"run: bash bin/run demo/train/draw_sprites.py --folder {folder}"
        )
    return {name: Image.open(folder / f"{name}.png").convert("RGBA") for name in SUBJECTS}


def stands_out(sprite: Image.Image, background: str) -> bool:
    """Whether a subject can be told from a background: a blue fish on blue teaches nothing and cannot be measured."""
    pixels = rearrange(np.asarray(sprite), "h w c -> (h w) c")
    opaque = pixels[pixels[:, 3] > 128, :3].astype(int)
    difference = np.abs(opaque - np.array(BACKGROUNDS[background])).max(axis=1)
    return float((difference > LEAST_DIFFERENCE).mean()) >= LEAST_SHOWN


def couples(sprites: Sprites) -> list[Couple]:
    """Every subject with every background that it can be told from."""
    return [(name, colour) for name in SUBJECTS for colour in BACKGROUNDS if stands_out(sprites[name], colour)]


@dataclass(frozen=True)
class Still:
    """A picture, ``h w c`` in 0..255, of a scene, and where the sprite's centre is in it."""

    scene: Scene
    x: float
    y: float
    picture: np.ndarray


class Painter:
    """Draws scenes; keeps the sprites in every size and facing that scenes come in.  No two threads at once."""

    def __init__(self, sprites: Sprites) -> None:
        self.sprites = sprites
        self.couples = couples(sprites)
        self._drawn: dict[tuple[str, int, bool], tuple[np.ndarray, np.ndarray]] = {}

    def frame(self, scene: Scene, frame: float) -> np.ndarray:
        """The picture at a frame, ``h w c`` in 0..255, the trail included."""
        side = SIDE * SUPERSAMPLING
        canvas = np.empty((side, side, 3), np.float32)
        canvas[:] = BACKGROUNDS[scene.background]
        x, y = scene.centre(frame)
        if scene.direction:
            dx, dy = DIRECTIONS[scene.direction]
            for copy, share in reversed(list(enumerate(TRAIL, start=1))):
                self._paste(canvas, scene, x - dx * copy * TRAIL_GAP, y - dy * copy * TRAIL_GAP, share)
        self._paste(canvas, scene, x, y, 1.0)
        picture = reduce(canvas, "(h s) (w t) c -> h w c", "mean", s=SUPERSAMPLING, t=SUPERSAMPLING)
        return np.rint(picture).astype(np.uint8)

    def clip(self, scene: Scene, frames: int = FRAMES) -> np.ndarray:
        """``f h w c`` in 0..255"""
        return np.stack([self.frame(scene, number) for number in range(frames)])

    def still(self, generator: random.Random) -> Still:
        """A frame of a clip drawn at random."""
        scene = draw_scene(generator, self.couples)
        frame = generator.uniform(0, FRAMES - 1)
        return Still(scene, *scene.centre(frame), self.frame(scene, frame))

    def _paste(self, canvas: np.ndarray, scene: Scene, x: float, y: float, share: float) -> None:
        """Blends the sprite in, centred at a place in picture pixels; what lies outside is cut."""
        faces = SUBJECTS[scene.subject].faces
        mirrored = faces is not None and scene.direction in ("left", "right") and scene.direction != faces
        colours, alpha = self._sprite(scene.subject, scene.size, mirrored)
        side, span = len(canvas), len(colours)
        left, top = (round(place * SUPERSAMPLING - span / 2) for place in (x, y))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + span, side), min(top + span, side)
        if x0 >= x1 or y0 >= y1:
            return
        inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        target = canvas[y0:y1, x0:x1]
        target += (colours[inside] - target) * (alpha[inside] * share)

    def _sprite(self, subject: str, size: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
        """Colours ``h w c`` in 0..255 and opacity ``h w 1`` in 0..1."""
        key = (subject, size, mirrored)
        if key not in self._drawn:
            span = size * SUPERSAMPLING
            # Premultiplied while it shrinks, or the colour of what is transparent would show at the edges.
            small = self.sprites[subject].convert("RGBa").resize((span, span), Image.Resampling.LANCZOS)
            small = small.convert("RGBA")
            if mirrored:
                small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = np.asarray(small, dtype=np.float32)
            self._drawn[key] = pixels[..., :3], pixels[..., 3:] / 255
        return self._drawn[key]
