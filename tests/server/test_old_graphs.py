"""Workflows of every version, opened by the present one: nodes and inputs are still there, and values still valid."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from old_graphs import GRAPHS, VERSIONS, label

from magicvideo.tools.host_server import PACK, HostServer, Prompt
from magicvideo.tools.prompt_edits import read_prompt
from workflow_input import make_input_files, short

Small = Callable[..., Prompt]
# Between them they have most of the nodes; the rest is validated by the server, and only these are run. One that is
# still shipped as it was is run by test_workflows.py, so here it's run of one kind alone.
RUN = ("text_to_video", "extend_clip", "video_to_video_controlnet")
SHIPPED = PACK / "workflows" / "api"


def is_to_be_run(version: Path, name: str) -> bool:
    changed = read_prompt(version / "api" / f"{name}.json") != read_prompt(SHIPPED / f"{name}.json")
    return name == RUN[0] or (name in RUN and changed)


@pytest.fixture(scope="module")
def listed(server: HostServer) -> dict[str, Any]:
    return server.get("/object_info")


@pytest.fixture(scope="module")
def busy(server: HostServer, small: Small) -> Iterator[HostServer]:
    """A server that has a long prompt to run, so that what is queued now is validated and then waits."""
    running = server.queue(small("text_to_video", steps=10_000))
    yield server
    server.post("/queue", {"clear": True})
    while not server.progress():  # an interrupt before the sampler starts would be lost
        time.sleep(0.1)
    server.interrupt()
    assert server.wait(running, seconds=60).interrupted, "the prompt that was to keep the server busy had ended"


@pytest.mark.parametrize(("version", "name"), GRAPHS, ids=label)
def test_every_node_and_input_of_an_old_graph_is_still_there(listed: dict[str, Any], version: Path, name: str) -> None:
    nodes = read_prompt(version / "api" / f"{name}.json").values()
    ours = [node for node in nodes if node["class_type"].startswith("MagicVideo_")]
    assert ours
    for node in ours:
        known = listed[node["class_type"]]["input"]
        assert node["inputs"].keys() <= known["required"].keys() | known.get("optional", {}).keys()


@pytest.mark.parametrize(("version", "name"), [graph for graph in GRAPHS if is_to_be_run(*graph)], ids=label)
def test_an_old_graph_runs(server: HostServer, small: Small, version: Path, name: str) -> None:
    prompt = short(small(name, folder=version))
    make_input_files(prompt, server.base / "input")
    assert server.run(prompt).files()


@pytest.mark.parametrize(("version", "name"), GRAPHS, ids=label)
def test_the_server_finds_nothing_wrong_with_an_old_graph(
    busy: HostServer, small: Small, version: Path, name: str
) -> None:
    prompt = small(name, folder=version)
    make_input_files(prompt, busy.base / "input")
    assert busy.post("/prompt", {"prompt": prompt})["node_errors"] == {}


def test_there_are_graphs_of_a_version() -> None:
    assert VERSIONS and {name for _, name in GRAPHS} >= set(RUN)
