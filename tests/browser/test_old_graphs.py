"""Graphs of every version, opened on the present page: it would queue what it would have queued then."""

import json
from pathlib import Path

import pytest
from old_graphs import GRAPHS, VERSIONS, label
from page import Page

from magicvideo.tools.host_server import Prompt
from magicvideo.tools.prompt_edits import read_prompt


def ours(prompt: Prompt) -> dict[str, tuple[str, dict[str, object]]]:
    return {
        number: (node["class_type"], node["inputs"])
        for number, node in prompt.items()
        if node["class_type"].startswith("MagicVideo_")
    }


@pytest.mark.parametrize("version", VERSIONS, ids=label)
def test_an_old_graph_still_says_the_same(page: Page, version: Path) -> None:
    for folder, name in GRAPHS:
        if folder == version:
            page.open_graph(json.loads((version / f"{name}.json").read_text(encoding="utf-8")))
            then, now = ours(read_prompt(version / "api" / f"{name}.json")), ours(page.prompt())
            # Inputs that have come since are new to the old graph, and have their defaults.
            kept = {
                number: (type, {k: v for k, v in inputs.items() if k in then[number][1]})
                for number, (type, inputs) in now.items()
            }
            assert kept == then, name
