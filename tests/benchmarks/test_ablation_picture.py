"""The ablation's picture shows each result where its number says."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes

from magicvideo.benchmarks.ablation_picture import PANELS, picture, save_picture

ROWS = ("nothing", "<all> & more", "never run")
COMPARED = "<all> & more"


def result(row: str, val_high: float, right: float) -> dict[str, object]:
    return {"row": row, "val_high": val_high, "right": right}


RESULTS = (result("nothing", 0.014, 0.25), result(COMPARED, 0.008, 0.5), result(COMPARED, 0.010, 1.0))


@pytest.fixture
def panels() -> list[Axes]:
    """The high-noise loss and the share of clips that move as asked."""
    return picture(ROWS, RESULTS, COMPARED).axes


def dots(panel: Axes) -> list[tuple[float, float]]:
    """Value and line of each dot: the seeds, row by row, then the means."""
    return [tuple(place) for group in panel.collections for place in group.get_offsets().tolist()]


def test_rows_that_were_measured_are_named_and_no_others(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.svg", ROWS, RESULTS, COMPARED)
    words = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    assert "nothing" in words and COMPARED in words and "never run" not in words
    assert all(title in words for panel in PANELS for title in panel.title.splitlines())


def test_each_seed_and_each_mean_has_a_dot_at_its_value(panels: list[Axes]) -> None:
    high, right = panels
    places = [(14, 0), (8, 1), (10, 1), (14, 0), (9, 1)]
    assert dots(high) == [pytest.approx(place) for place in places]
    places = [(25, 0), (50, 1), (100, 1), (25, 0), (75, 1)]
    assert dots(right) == [pytest.approx(place) for place in places]
    assert PANELS[0].place(99) == 15 and PANELS[0].place(0) == 7, "beyond an end, at it"
    assert high.get_ylim()[0] > high.get_ylim()[1], "the first row is the upper one"
    assert [label.get_text() for label in high.get_yticklabels()] == ["nothing", COMPARED]


def test_a_line_marks_the_mean_of_the_row_that_others_are_compared_with(panels: list[Axes]) -> None:
    marks = [line.get_xdata() for panel in panels for line in panel.lines]
    assert marks == [pytest.approx([9, 9]), pytest.approx([75, 75])]


def test_the_same_results_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save_picture(tmp_path / name, ROWS, RESULTS, COMPARED)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
