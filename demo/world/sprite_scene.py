"""One sprite that moves over a flat background: what the demo's training pictures and clips show.

A still shows the direction, as a photograph of a thing in motion does: the sprite faces the way it moves, and fading
copies of it stand behind. Temporal attention never sees the text, so what the image model does not show of a direction,
no video adaptor can follow.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS, Direction

SIDE = 64
SPEED = 24.0  # pixels a second
FRAME_RATES = (8.0, 12.0, 16.0, 32.0)
FRAMES = 16
SIZE = 28
# How much of a sprite may leave the picture: what reaches this place stays there, so a long clip has an end as well.
CUT = 5.0  # pixels
TRAIL_GAP = 5.0  # pixels from copy to copy
TRAIL = (0.45, 0.28, 0.15)  # how much of each copy shows, the nearest first
STANDING = 0.1  # share of scenes in which nothing moves
# A subject and its background, by name.
Couple = tuple[str, str]


@dataclass(frozen=True)
class Scene:
    """A sprite on its way over a background.  Raises ValueError for one that cannot be.

    ``direction`` None: it stands still, without a trail.  ``x`` and ``y``: centre of the sprite at the start.  ``size``
    and places are in pixels of a picture of SIDE x SIDE, ``fps`` is the clip's frame rate.
    """

    subject: str
    background: str
    direction: Direction | None
    size: int
    x: float
    y: float
    fps: float

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS or self.background not in BACKGROUNDS:
            raise ValueError(f"no such subject or background: {self.subject!r}, {self.background!r}")
        if self.direction is not None and self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)} or None, found {self.direction!r}")
        if not 1 <= self.size <= SIDE or not 1 <= self.fps <= 120:
            raise ValueError(f"size must be from 1 to {SIDE} and fps from 1 to 120, found {self.size}, {self.fps}")

    def centre(self, frame: float) -> tuple[float, float]:
        """Where the sprite is at a frame, counted from 0."""
        dx, dy = DIRECTIONS[self.direction] if self.direction else (0, 0)
        way = SPEED * frame / self.fps
        return self._inside(self.x + dx * way), self._inside(self.y + dy * way)

    def _inside(self, place: float) -> float:
        return min(max(place, self.size / 2 - CUT), SIDE - self.size / 2 + CUT)


def draw_scene(
    generator: random.Random, choices: list[Couple], frames: int = FRAMES, rates: Sequence[float] = FRAME_RATES
) -> Scene:
    """A scene drawn at random; its path of so many frames is inside the picture, or begins at its edge if it can't be.

    It begins where it would at the slowest of the rates, so that the place does not tell how fast things will go.
    """
    subject, background = generator.choice(choices)
    direction = None if generator.random() < STANDING else generator.choice(list(DIRECTIONS))
    fps = generator.choice(rates)
    way = SPEED * (frames - 1) / min(rates)
    dx, dy = DIRECTIONS[direction] if direction else (0, 0)
    x, y = (_start(generator, step * way) for step in (dx, dy))
    return Scene(subject, background, direction, SIZE, x, y, fps)


def _start(generator: random.Random, way: float) -> float:
    low = max(min(SIZE / 2, (SIDE - abs(way)) / 2), SIZE / 2 - CUT)
    start = generator.uniform(low, max(low, SIDE - low - abs(way)))
    return start if way >= 0 else SIDE - start
