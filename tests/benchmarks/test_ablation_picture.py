"""The ablation's picture shows each result where its number says."""

from xml.etree import ElementTree

import pytest

from magicvideo.benchmarks.ablation_picture import PANELS, picture

ROWS = ("nothing", "<all> & more", "never run")
HIGH, RIGHT = PANELS


def result(row: str, val_high: float, right: float) -> dict[str, object]:
    return {"row": row, "val_high": val_high, "right": right}


RESULTS = (result("nothing", 0.014, 0.25), result("<all> & more", 0.008, 0.5), result("<all> & more", 0.010, 1.0))


def drawn(tag: str) -> list[ElementTree.Element]:
    tree = ElementTree.fromstring(picture(ROWS, RESULTS, compared="<all> & more"))
    return tree.findall(f"{{http://www.w3.org/2000/svg}}{tag}")


def test_rows_that_were_measured_are_named_and_no_others() -> None:
    words = [element.text for element in drawn("text")]
    assert "nothing" in words and "<all> & more" in words and "never run" not in words


def test_each_seed_and_each_mean_has_a_dot_at_its_value() -> None:
    dots = [float(dot.get("cx")) for dot in drawn("circle")]
    assert len(dots) == len(PANELS) * (2 + 3)
    left = dots[0] - HIGH.place(14)
    assert dots[:5] == pytest.approx([left + HIGH.place(value) for value in (14, 14, 8, 10, 9)])
    left = dots[5] - RIGHT.place(25)
    assert dots[5:] == pytest.approx([left + RIGHT.place(value) for value in (25, 25, 50, 100, 75)])
    assert RIGHT.place(50) > RIGHT.place(25) and HIGH.place(99) == HIGH.place(15)


def test_a_line_marks_the_mean_of_the_row_that_others_are_compared_with() -> None:
    marks = [float(line.get("x1")) for line in drawn("line") if line.get("stroke-dasharray")]
    dots = [float(dot.get("cx")) for dot in drawn("circle")]
    assert marks == pytest.approx([dots[4], dots[9]])
