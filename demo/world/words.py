"""The words that the demo model knows, and what it can make of a prompt.  Nothing but the standard library is needed.

A word counts for itself, wherever it stands in the prompt.
"""

import re
from collections.abc import Iterable

from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS

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

KINDS = {"subject": SUBJECTS, "background": BACKGROUNDS, "direction": DIRECTIONS}
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


class PromptError(ValueError):
    """A prompt that the demo model can do nothing with; the message says why, and what it knows."""


def known_words() -> str:
    """All that the model knows, kind by kind, synonyms in brackets."""
    lines = []
    for kind, meanings in KINDS.items():
        words = (_with_synonyms(meaning) for meaning in meanings)
        lines.append(f"  {kind}s: {', '.join(words)}")
    return "\n".join(lines)


def _with_synonyms(meaning: str) -> str:
    first, *others = SYNONYMS[meaning]
    return f"{first} ({', '.join(others)})" if others else first


def check_prompt(prompt: str) -> list[str]:
    """Remarks on what the model will take no notice of.

    Raises PromptError for a prompt without a subject, or with two of what there can be one of.
    """
    unknown = list(dict.fromkeys(unknown_words(prompt)))
    said = {kind: [m for m in dict.fromkeys(meanings_of(prompt)) if m in meanings] for kind, meanings in KINDS.items()}
    for kind, meanings in said.items():
        if len(meanings) > 1:
            raise PromptError(f"The demo model draws one {kind} at a time, the prompt names {_listed(meanings)}.")
    if not said["subject"]:
        found = f"it does not know {_listed(unknown)}" if unknown else "the prompt names none"
        raise PromptError(f"The demo model needs a subject that it knows; {found}. It knows\n{known_words()}")
    remarks = []
    if unknown:
        remarks.append(
            f"The demo model does not know {_listed(unknown)}, and takes no notice. It knows\n{known_words()}"
        )
    if not said["direction"]:
        remarks.append("The prompt names no direction, so the thing may stand still.")
    return remarks


def _listed(words: Iterable[str]) -> str:
    *first, last = (repr(word) for word in words)
    return f"{', '.join(first)} and {last}" if first else last
