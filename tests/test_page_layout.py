"""Where nodes lie in the shipped workflows: large enough to be read when a template opens, whole in a small window."""

import json
from pathlib import Path

import pytest
from pack import ROOT

from magicvideo.tools.lay_out_workflows import laid_out
from magicvideo.tools.page_layout import (
    BANNER,
    BARS,
    LEAST_SCALE,
    SMALL_WINDOW,
    around,
    blocks_of,
    node_height,
    opening_scale,
    outer_box,
)

FILES = sorted((ROOT / "workflows").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def box(left: float, top: float, width: float, height: float, type: str = "KSampler") -> dict:
    return {"pos": [left, top], "size": [width, height], "type": type}


def test_a_template_opens_large_enough_to_be_read(path: Path) -> None:
    assert opening_scale(json.loads(path.read_text(encoding="utf-8"))["nodes"]) >= LEAST_SCALE


def test_the_view_that_older_pages_open_is_readable_and_whole_in_a_small_window(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    view = graph["extra"]["ds"]
    boxes = [outer_box(node) for node in graph["nodes"]] + [tuple(group["bounding"]) for group in graph["groups"]]
    left, top, width, height = around(boxes)
    assert view["scale"] >= LEAST_SCALE
    for start, size, moved, bar, window in zip(
        (left, top), (width, height), view["offset"], BARS, SMALL_WINDOW, strict=True
    ):
        assert bar - 1 <= (start + moved) * view["scale"] and (start + size + moved) * view["scale"] <= window


def test_older_pages_banner_covers_nothing_where_a_graph_can_be_read_below_it(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    view = graph["extra"]["ds"]
    top = min(outer_box(node)[1] for node in graph["nodes"])
    covered = (top + view["offset"][1]) * view["scale"] < BARS[1] + BANNER - 1
    assert not covered or view["scale"] == LEAST_SCALE


def test_the_files_are_as_the_tool_lays_them_out(path: Path) -> None:
    told = f"bash bin/run tools/lay_out_workflows.py workflows/{path.name} lays it out"
    assert path.read_text(encoding="utf-8") == laid_out(path), told


def test_the_title_of_a_group_is_no_wider_than_the_group(path: Path) -> None:
    """The page draws a letter about 10 wide."""
    groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
    assert [group["title"] for group in groups if 10 * len(group["title"]) > group["bounding"][2]] == []


def test_the_scale_is_the_pages_by_hand() -> None:
    """Two nodes cover 1980 x 330 with their titles, and 10 around them: 0.75 * 1600 / 2000; high ones by the height."""
    wide = [box(0, 30, 280, 300), box(1700, 30, 280, 100)]
    assert opening_scale(wide, (1600, 1000)) == pytest.approx(0.6)
    assert opening_scale([box(0, 30, 100, 1450)], (1600, 1000)) == pytest.approx(0.5)


def test_a_node_is_as_high_as_its_rows() -> None:
    """KSampler on both pages: 4 links of 20 and 7 values of 24, 14 below."""
    node = box(0, 0, 280, 0) | {"inputs": [{}] * 4 + [{"widget": {}}] * 7, "outputs": [{}], "widgets_values": [0] * 7}
    assert node_height(node) == 262


def test_every_node_is_in_a_block_once(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    listed = [node["id"] for block in blocks_of(graph) for node in block.nodes]
    assert sorted(listed) == sorted(node["id"] for node in graph["nodes"])
