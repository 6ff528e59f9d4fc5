"""What bin/demo says to a prompt."""

import random

import pytest

from magicvideo.demo.world.captions import caption
from magicvideo.demo.world.sprite_scene import draw_scene
from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS
from magicvideo.demo.world.vocabulary import MEANINGS, PromptError, check_prompt, known_words


def test_every_known_word_is_listed() -> None:
    listed = known_words().replace(",", " ").replace("(", " ").replace(")", " ").split()
    assert set(MEANINGS) <= set(listed)


def test_prompts_like_those_of_training_pass_and_only_a_missing_direction_is_remarked_on() -> None:
    generator, allowed = random.Random(0), [(name, colour) for name in SUBJECTS for colour in BACKGROUNDS]
    for _ in range(300):
        scene = draw_scene(generator, allowed)
        told = check_prompt(caption(scene, generator))
        assert len(told) == (scene.direction is None) and all("direction" in remark for remark in told)


@pytest.mark.parametrize("order", ["rocket left blue", "blue left rocket", "left, blue: Rocket!", "ROCKET left, BLUE"])
def test_the_order_of_words_and_their_letters_do_not_matter(order: str) -> None:
    assert check_prompt(order) == []


def test_an_unknown_word_is_named_with_what_is_known_instead() -> None:
    (remark,) = check_prompt("a red balloon zooming up on a blue background")
    assert "'red' and 'zooming'" in remark
    assert all(word in remark for word in ("rocket", "purple", *DIRECTIONS))


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("a dog moving left", "'dog'"),
        ("moving left on blue", "names none"),
        ("", "names none"),
        ("a cat and a panda", "one subject"),
        ("a cat moving up and left", "one direction"),
        ("a cat on a blue and green wall", "one background"),
    ],
)
def test_a_prompt_that_cannot_be_drawn_is_refused_with_the_reason(prompt: str, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        check_prompt(prompt)


def test_synonyms_are_one_thing() -> None:
    assert check_prompt("a cat, a kitten, going down, falling") == []
