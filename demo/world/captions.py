"""What a person might type for a scene: its parts in any order, some left out, synonyms for the words."""

import random

from magicvideo.demo.world.sprite_scene import Scene
from magicvideo.demo.world.words import MOTIONS, PLACES, SYNONYMS

# Share of captions that say nothing of the background, so that a prompt need not either.
NO_BACKGROUND = 0.1


def caption(scene: Scene, generator: random.Random) -> str:
    """A caption drawn at random; whatever it says is true of the scene."""
    background = f"{_word(scene.background, generator)} {generator.choice(PLACES)}"
    subject = f"{article(word := _word(scene.subject, generator))} {word}"
    if scene.direction:
        subject += f" {_motion(_word(scene.direction, generator), generator)}"
    if generator.random() < NO_BACKGROUND:
        return subject
    return generator.choice(
        (
            f"{subject} on {article(background)} {background}",
            f"{subject}, {background}",
            f"{background}, {subject}",
            f"on {article(background)} {background} {subject}",
        )
    )


def _word(meaning: str, generator: random.Random) -> str:
    return generator.choice(SYNONYMS[meaning])


def _motion(direction: str, generator: random.Random) -> str:
    """Such as "moving left"; "falling" needs no other verb."""
    return direction if direction.endswith("ing") else f"{generator.choice(MOTIONS)} {direction}"


def article(word: str) -> str:
    """The indefinite article for a word: "a" or "an"."""
    return "an" if word[0] in "aeiou" else "a"
