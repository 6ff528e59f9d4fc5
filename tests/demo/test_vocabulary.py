"""Words and their vectors."""

import pytest
import torch

from magicvideo.demo.model.sizes import TEXT_CHANNELS
from magicvideo.demo.train.encode_stills import MEANING_NUMBERS, word_numbers, word_table
from magicvideo.demo.world.vocabulary import word_vector
from magicvideo.demo.world.words import SYNONYMS, meanings_of, unknown_words


def test_order_case_and_punctuation_do_not_matter() -> None:
    expected = {"rocket", "left", "blue"}
    assert set(meanings_of("A Rocket, moving LEFT -- blue background!")) == expected
    assert set(meanings_of("on a blue wall a spaceship flying left")) == expected


def test_unknown_words_are_named_in_their_order() -> None:
    assert unknown_words("a red balloon gliding left over the green sea") == ["red", "gliding", "sea"]


def test_synonyms_are_the_same_to_the_model() -> None:
    assert word_numbers("kitten rising") == word_numbers("cat up")


def test_vectors_are_normalised_and_almost_at_right_angles() -> None:
    vectors = torch.stack([word_vector(meaning) for meaning in SYNONYMS])
    torch.testing.assert_close(vectors.mean(-1), torch.zeros(len(vectors)), atol=1e-5, rtol=0)
    angles = vectors @ vectors.T / TEXT_CHANNELS
    torch.testing.assert_close(angles.diagonal(), torch.ones(len(vectors)))
    assert (angles - torch.eye(len(vectors))).abs().max() < 0.2


def test_a_prompt_of_unknown_words_is_an_empty_one() -> None:
    assert word_table()[word_numbers("quantum")].count_nonzero() == 0


def test_numbers_lead_to_the_vectors_of_the_words() -> None:
    prompt = "a ship sailing right on a white backdrop"
    vectors = torch.stack([word_vector(meaning) for meaning in ("ship", "right", "white")])
    assert torch.equal(word_table()[word_numbers(prompt)], vectors)
    assert 0 not in MEANING_NUMBERS.values()
    with pytest.raises(ValueError, match="at most 3"):
        word_numbers("a ship a car a cat a bee")
