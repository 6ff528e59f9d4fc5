"""A setting is checked by what its field declares."""

from dataclasses import dataclass
from typing import Literal

import pytest

from magicvideo.adaptor_unet.training.setting_fields import check_settings, setting, settings_of


@dataclass(frozen=True)
class Made:
    """One setting of each kind."""

    count: int = setting(3, "How many.", least=1, most=9)
    width: int = setting(64, "How wide.", least=8, multiple=8)
    rate: float = setting(0.5, "How fast.")
    part: float = setting(0.5, "How much.", share=True)
    on: bool = setting(True, "Whether.", tooltip="Whether, in a graph.")
    colour: Literal["red", "green"] = setting("red", "Which one.")
    sides: tuple[str, ...] = setting(("left",), "Which sides.", choices=("left", "right", "top"))
    name: str = setting("", "What it is called.")
    factor: float = setting(2.0, "How many times.", above=0)
    decay: float = setting(0.5, "How slowly.", below=1)
    angle: float = setting(1.0, "How far.", above=-3, most=3)

    def __post_init__(self) -> None:
        check_settings(self, "{name} must be {expected}, found {found}")


@pytest.mark.parametrize(
    "fine",
    [
        {"count": 1},
        {"count": 9},
        {"width": 8},
        {"rate": 2},
        {"rate": 0.0},
        {"part": 1},
        {"colour": "green"},
        {"sides": ("top", "left")},
        {"name": "{brace}"},
        {"factor": 1e-9},
        {"decay": 0},
        {"decay": 0.999},
        {"angle": 3},
    ],
)
def test_what_is_declared_passes(fine: dict[str, object]) -> None:
    Made(**fine)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 0, "count must be a whole number from 1 to 9, found 0"),
        ("count", 10, "count must be a whole number from 1 to 9, found 10"),
        ("count", 2.0, "count must be a whole number from 1 to 9, found 2.0"),
        ("count", True, "count must be a whole number from 1 to 9, found True"),
        ("width", 12, "width must be a whole number of at least 8, a multiple of 8, found 12"),
        ("rate", float("inf"), "rate must be a finite number, 0 or more, found inf"),
        ("rate", "2", "rate must be a finite number, 0 or more, found '2'"),
        ("part", 1.5, "part is a share and must lie in 0 to 1, found 1.5"),
        ("part", True, "part is a share and must lie in 0 to 1, found True"),
        ("on", 1, "on must be true or false, found 1"),
        ("colour", "blue", "colour must be red or green, found 'blue'"),
        ("sides", (), r"sides must be some of left, right, top, found \(\)"),
        ("sides", ("left", "below"), "sides must be some of left, right, top, found"),
        ("name", None, "name must be text, found None"),
        ("name", 3, "name must be text, found 3"),
        ("factor", 0, "factor must be a finite number, above 0, found 0"),
        ("factor", -1.0, "factor must be a finite number, above 0, found -1.0"),
        ("decay", 1, "decay must be a finite number, 0 or more, below 1, found 1"),
        ("decay", 1.1, "decay must be a finite number, 0 or more, below 1, found 1.1"),
        ("angle", -3.0, "angle must be a finite number, above -3, at most 3, found -3.0"),
    ],
)
def test_anything_else_is_refused_by_name(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        Made(**{name: value})


def test_all_that_is_declared_can_be_read() -> None:
    found = settings_of(Made)
    assert [*found][:8] == ["count", "width", "rate", "part", "on", "colour", "sides", "name"]
    assert [one.kind for one in found.values()][:8] == [int, int, float, float, bool, str, tuple, str]
    assert found["colour"].choices == ("red", "green") and found["sides"].choices == ("left", "right", "top")
    assert (found["count"].default, found["count"].least, found["count"].most) == (3, 1, 9)
    assert (found["on"].help, found["on"].tooltip, found["name"].tooltip) == (
        "Whether.",
        "Whether, in a graph.",
        "What it is called.",
    )
