"""A setting is declared once, as a field of a dataclass: its type, default, range and one sentence.

Whatever checks, reads or shows settings takes them from there: ``check_settings``, the command line, the TOML reader,
the inputs of the training node and the table in docs/settings.md.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

MOST_SHOWN = 80
# Ends of whole numbers that nobody comes near, so that none of them makes a run wait or take memory without end.
MOST_STEPS, MOST_FRAMES, MOST_CLIPS, MOST_SAMPLING_STEPS, MOST_RANK = 10_000_000, 1024, 65_536, 1000, 4096
# What torch takes for one.
MOST_SEED = 2**64 - 1
# Frames a second, where there is a rate: one frame in so many seconds to so many a second.
LEAST_RATE, MOST_RATE = 0.001, 1000.0


def setting(
    default: object,
    help: str,  # noqa: A002 - argparse's own word for it
    *,
    least: float = 0,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    multiple: int = 1,
    share: bool = False,
    choices: tuple[str, ...] = (),
    tooltip: str = "",
) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A dataclass field that is a setting.

    ``help`` is one sentence or two, as ``--help`` and the guide show them; a node that has the setting as an input
    shows ``tooltip`` instead, where things are different in a graph.  ``least`` and ``most`` bound a number, which must
    be a multiple of ``multiple``; a ``share`` lies in 0 to 1.  An end that a number may come near but not have is
    ``above`` in place of ``least``, or ``below`` in place of ``most``.  ``choices`` are the words that a tuple may
    hold; those of a single word are in its type, a ``Literal``.
    """
    told = {"help": help, "tooltip": tooltip or help, "choices": choices, "multiple": multiple, "share": share}
    told |= {"least": least if above is None else above, "most": 1 if share else most if below is None else below}
    return field(default=default, metadata=told | {"excluded": tuple(x for x in (above, below) if x is not None)})


@dataclass(frozen=True)
class Setting:
    """What is declared of one setting.  ``kind`` is int, float, bool, str or tuple; ``choices`` empty for free text.

    A number lies from ``least`` to ``most``; those of the two that are ``excluded`` it must not be itself.
    """

    name: str
    kind: type
    default: Any
    help: str
    least: float
    most: float | None
    excluded: tuple[float, ...]
    multiple: int
    share: bool
    choices: tuple[str, ...]
    tooltip: str

    def allows(self, value: object) -> bool:
        """Whether a value is of the right type and in range; a float may be written as a whole number."""
        if self.kind in (int, float):
            # A whole number may be too large for a float, which all of them become sooner or later.
            if type(value) not in (int, self.kind) or not self.least <= value <= sys.float_info.max:
                return False
            if value in self.excluded or (self.most is not None and value > self.most):
                return False
            return self.multiple == 1 or value % self.multiple == 0
        if self.kind is tuple:
            return isinstance(value, tuple) and bool(value) and all(word in self.choices for word in value)
        return isinstance(value, self.kind) and (not self.choices or value in self.choices)

    @property
    def bounds(self) -> str:
        """The range of a number in few words, such as 0 to 1; of a whole number all digits."""
        least, most = (str(end) if self.kind is int or end is None else f"{end:g}" for end in (self.least, self.most))
        if self.most is not None and not self.excluded:
            return f"{least} to {most}"
        start = f"above {least}" if self.least in self.excluded else f"{least} or more"
        if self.most is None:
            return start
        return f"{start}, below {most}" if self.most in self.excluded else f"{start}, at most {most}"

    @property
    def expected(self) -> str:
        """What a value must be, in words that stand behind "must be"."""
        if self.kind is float:
            return f"a finite number, {self.bounds}"
        if self.kind is int:
            bounds = f"of at least {self.least}" if self.most is None else f"from {self.least} to {self.most}"
            return f"a whole number {bounds}" + (f", a multiple of {self.multiple}" if self.multiple > 1 else "")
        if self.kind is tuple:
            return f"some of {', '.join(self.choices)}"
        if self.choices:
            return " or ".join(self.choices) if len(self.choices) == 2 else f"one of {', '.join(self.choices)}"
        return "true or false" if self.kind is bool else "text"


def settings_of(declaring: type) -> dict[str, Setting]:
    """All settings of a dataclass by name, in their order."""
    found = {}
    for one in fields(declaring):
        words = get_args(one.type) if get_origin(one.type) is Literal else one.metadata["choices"]
        kind = str if get_origin(one.type) is Literal else get_origin(one.type) or one.type
        found[one.name] = Setting(one.name, kind, one.default, **{**one.metadata, "choices": words})
    return found


def changed(settings: object) -> list[str]:
    """Names of a dataclass's settings that are not as they are by default, in their order."""
    return [one.name for one in settings_of(type(settings)).values() if getattr(settings, one.name) != one.default]


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for a setting that there is not, with the name that was probably meant."""
    known = sorted(known)
    for name in names:
        if name not in known:
            near = get_close_matches(name[:80], known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise ValueError(f"there is no setting {name!r:.80}. {hint}")


def check_settings(settings: object, sentence: str) -> None:
    """Raises ValueError for the first value that is of the wrong type or out of range.

    ``sentence`` says so, with places for ``{name}``, ``{expected}`` and ``{found}``.
    """
    for one in settings_of(type(settings)).values():
        value = getattr(settings, one.name)
        if not one.allows(value):
            if one.share:
                raise ValueError(f"{one.name} is a share and must lie in 0 to 1, found {shown(value)}")
            raise ValueError(sentence.format(name=one.name, expected=one.expected, found=shown(value)))


def shown(value: object) -> str:
    """What was found, cut where a file has more of it than anybody wants to read."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # too deep, or a number of thousands of digits
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
