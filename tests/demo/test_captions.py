"""Captions say what the scene shows, in any order, in words that the demo model knows."""

import random

import pytest

from magicvideo.demo.world.captions import caption
from magicvideo.demo.world.sprite_scene import Scene, draw_scene
from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS
from magicvideo.demo.world.words import MEANINGS, SILENT, meanings_of, unknown_words, words_of

COUPLES = [(subject, background) for subject in SUBJECTS for background in BACKGROUNDS]
SCENE = Scene("turtle", "orange", "up", size=28, x=30, y=40, fps=8)


@pytest.fixture
def many() -> list[tuple[Scene, str]]:
    generator = random.Random(5)
    scenes = [draw_scene(generator, COUPLES) for _ in range(2000)]
    return [(scene, caption(scene, generator)) for scene in scenes]


def test_a_caption_says_what_is_seen_and_nothing_else(many: list[tuple[Scene, str]]) -> None:
    for scene, text in many:
        said, seen = set(meanings_of(text)), {scene.subject, scene.background, scene.direction} - {None}
        assert said <= seen, text
        assert seen - said <= {scene.background}, text


def test_a_caption_has_no_word_that_the_model_does_not_know(many: list[tuple[Scene, str]]) -> None:
    assert {word for _, text in many for word in unknown_words(text)} == set()


def test_every_known_word_comes_up(many: list[tuple[Scene, str]]) -> None:
    assert MEANINGS.keys() - {word for _, text in many for word in words_of(text)} == set()


def test_parts_come_in_different_orders() -> None:
    orders = {meanings_of(caption(SCENE, random.Random(seed))) for seed in range(50)}
    assert {("turtle", "up", "orange"), ("orange", "turtle", "up"), ("turtle", "up")} <= orders


def test_vowels_get_their_article(many: list[tuple[Scene, str]]) -> None:
    for _, text in many:
        words = words_of(text)
        for article, word in zip(words, words[1:], strict=False):
            if article in ("a", "an"):
                assert article == ("an" if word[0] in "aeiou" else "a"), text


def test_no_word_is_both_known_and_silent() -> None:
    assert MEANINGS.keys() & SILENT == set()


def test_a_direction_is_never_the_name_of_something_else() -> None:
    assert not DIRECTIONS.keys() & (SUBJECTS.keys() | BACKGROUNDS.keys())
