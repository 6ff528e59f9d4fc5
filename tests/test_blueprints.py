"""The shipped subgraph blueprints and what the page shows in its app mode.  No host is needed."""

import json
from pathlib import Path

import pytest
from pack import ROOT

from magicvideo.tools.app_mode import app_mode
from magicvideo.tools.blueprints import BLUEPRINTS, files

FOLDER, WORKFLOWS = ROOT / "subgraphs", sorted((ROOT / "workflows").glob("*.json"))


def test_the_blueprints_are_as_the_tool_cuts_them_out_of_the_workflows() -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert kept == files(), "bash bin/run tools/blueprints.py writes them"


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_both_ends_of_each_link_of_a_blueprint_agree(name: str) -> None:
    graph = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    (inside,), (outer,) = graph["definitions"]["subgraphs"], graph["nodes"]
    nodes = {node["id"]: node for node in inside["nodes"]}
    for link in inside["links"]:
        start, end = link["origin_id"], link["target_id"]
        source = (nodes[start]["outputs"] if start in nodes else inside["inputs"])[link["origin_slot"]]
        target = (nodes[end]["inputs"] if end in nodes else inside["outputs"])[link["target_slot"]]
        assert source["type"] == target["type"] == link["type"]
        assert link["id"] in (source["links"] if start in nodes else source["linkIds"])
        assert link["id"] == target["link"] if end in nodes else link["id"] in target["linkIds"]
    assert [row["name"] for row in outer["inputs"]] == [row["name"] for row in inside["inputs"]]
    assert len(outer["widgets_values"]) == sum("widget" in row for row in outer["inputs"])
    assert outer["type"] == inside["id"] and inside["name"] == name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_app_mode_shows_a_few_open_widgets_and_the_video(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    shown = graph["extra"]["linearData"]
    assert shown == app_mode(graph) and 4 <= len(shown["inputs"]) <= 8
    for number, name in shown["inputs"]:
        (row,) = (row for row in nodes[number]["inputs"] if row["name"] == name)
        assert row["link"] is None and row["widget"] == {"name": name}
    assert [nodes[number]["type"] for number in shown["outputs"]] == ["SaveVideo"]
