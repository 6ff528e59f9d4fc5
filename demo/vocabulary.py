"""The words that the demo model knows, and the vector of each.

A word counts for itself, wherever it stands in the prompt, and synonyms share a vector. Each word must be one token of
CLIP's tokenizer, or it would reach the image network as pieces.

Axes: n words, d text channels.
"""

import re
import zlib

import torch
from torch import Tensor

from compact_checkpoint import TEXT_CHANNELS
from subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS

# What a word stands for, and the words for it; the first is the plain one.
SYNONYMS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*SUBJECTS, *BACKGROUNDS, *DIRECTIONS)},
    "rocket": ("rocket", "spaceship"),
    "car": ("car", "auto", "automobile"),
    "turtle": ("turtle", "tortoise"),
    "ball": ("ball", "football"),
    "cat": ("cat", "kitten", "kitty"),
    "train": ("train", "locomotive"),
    "ship": ("ship", "boat"),
    "purple": ("purple", "violet"),
    "up": ("up", "upward", "upwards", "rising", "climbing"),
    "down": ("down", "downward", "falling", "sinking"),
}

MOTIONS = ("moving", "going", "flying", "driving", "swimming", "sailing", "running", "rolling", "floating", "drifting")
PLACES = ("background", "backdrop", "wall", "sky")
# Words that a prompt may hold and that mean nothing to the model: their vector is zero, as that of any other token.
SILENT = frozenset((*MOTIONS, *PLACES, *"a an the on in over to with and of is that which towards toward".split()))

MEANINGS: dict[str, str] = {word: meaning for meaning, words in SYNONYMS.items() for word in words}


def words_of(prompt: str) -> list[str]:
    """The words of a prompt in small letters, without punctuation."""
    return re.findall(r"[^\W\d_]+", prompt.lower())


def unknown_words(prompt: str) -> list[str]:
    """Words that the model takes no notice of and that may matter to the person who wrote them."""
    return [word for word in words_of(prompt) if word not in MEANINGS and word not in SILENT]


def meanings_of(prompt: str) -> tuple[str, ...]:
    """What the known words of a prompt stand for, in their order."""
    return tuple(MEANINGS[word] for word in words_of(prompt) if word in MEANINGS)


def word_vector(meaning: str) -> Tensor:
    """The text channels ``d`` that the image network gets for a meaning: random, the same always, mean 0, variance 1.

    Random vectors of this many channels are almost at right angles, and layer norms leave these as they are.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(meaning.encode()))
    vector = torch.randn(TEXT_CHANNELS, generator=generator)
    return (vector - vector.mean()) / vector.std(correction=0)


def text_of(prompt: str, tokens: int) -> Tensor:
    """``n d``, n = tokens: the known words, the rest zero.  Raises ValueError for more known words than that."""
    meanings = meanings_of(prompt)
    if len(meanings) > tokens:
        raise ValueError(f"room for {tokens} known words, found {len(meanings)}: {', '.join(meanings)}")
    text = torch.zeros(tokens, TEXT_CHANNELS)
    for place, meaning in enumerate(meanings):
        text[place] = word_vector(meaning)
    return text
