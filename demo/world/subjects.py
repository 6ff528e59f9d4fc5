"""What the demo model knows: the subjects, backgrounds and directions that its training pictures show."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["left", "right", "up", "down"]
Colour = tuple[int, int, int]

# Steps in x and y, y downwards as in a picture.
DIRECTIONS: dict[Direction, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

BACKGROUNDS: dict[str, Colour] = {
    "blue": (66, 120, 220),
    "green": (76, 175, 80),
    "purple": (126, 70, 180),
    "pink": (244, 150, 190),
    "yellow": (250, 222, 90),
    "orange": (245, 150, 60),
    "black": (28, 28, 32),
    "white": (245, 245, 245),
}


@dataclass(frozen=True)
class Subject:
    """A thing that the demo model can draw.

    ``picture``: its name in the Noto Emoji set.  ``faces``: where it looks as drawn, None where nobody could tell; a
    subject that looks somewhere is mirrored to face the way it moves.
    """

    name: str
    picture: str
    faces: Literal["left", "right"] | None = None


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject("rocket", "rocket", "right"),
        Subject("car", "automobile", "left"),
        Subject("fish", "tropical-fish", "left"),
        Subject("turtle", "turtle", "left"),
        Subject("bee", "honeybee", "left"),
        Subject("balloon", "balloon"),
        Subject("ball", "soccer-ball"),
        Subject("apple", "red-apple"),
        Subject("cat", "cat-face"),
        Subject("panda", "panda"),
        Subject("train", "locomotive", "left"),
        Subject("ship", "ship", "left"),
        Subject("star", "star"),
        Subject("robot", "robot"),
        Subject("crab", "crab"),
        Subject("heart", "red-heart"),
    )
}
