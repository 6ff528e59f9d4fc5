"""What a person asked for, against what the demo model knows."""

from collections.abc import Iterable

from subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS
from vocabulary import SYNONYMS, meanings_of, unknown_words

KINDS = {"subject": SUBJECTS, "background": BACKGROUNDS, "direction": DIRECTIONS}


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
