"""What bin/demo says to a prompt."""

import random

import pytest

from magicvideo.demo.wishes import MOST_SEEDS, frames_in_words, how_long, parse_arguments
from magicvideo.demo.world.captions import caption
from magicvideo.demo.world.sprite_scene import draw_scene
from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS
from magicvideo.demo.world.words import MEANINGS, PromptError, check_prompt, known_words


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


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--seed", "-1", "from 0 to"),
        ("--seed", str(MOST_SEEDS), "from 0 to"),
        ("--frames", "0", "from 1 to 4096"),
        ("--frames", "5000", "from 1 to 4096"),
        ("--fps", "0.5", "from 1 to 120"),
    ],
)
def test_a_number_that_comfyui_does_not_take_is_refused_with_the_range(
    option: str, value: str, told: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["a cat", option, value])
    assert f"argument {option}: must be {told}" in capsys.readouterr().err


def test_the_largest_seed_is_taken() -> None:
    assert parse_arguments(["--seed", str(MOST_SEEDS - 1)]).seed == MOST_SEEDS - 1


def test_frames_are_counted_as_people_do() -> None:
    assert (frames_in_words(1), frames_in_words(2)) == ("1 frame", "2 frames")


def test_a_person_is_told_what_is_fetched_and_how_long_sampling_takes() -> None:
    assert how_long(16, fetched=True) == "16 frames take about 2 min on a processor, less on a GPU."
    assert "several GB" in how_long(64, fetched=False) and "about 8 min" in how_long(64, fetched=False)
    assert "1 frame takes" in how_long(1, fetched=True)
