"""The subgraph blueprints as the page gets them from the server, and what they compute."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from served_models import CONTROLNET

from magicvideo.tools.blueprints import BLUEPRINTS
from magicvideo.tools.host_server import PACK_NAME, HostServer, Prompt
from magicvideo.tools.page_graph import PageGraph
from magicvideo.tools.prompt_edits import nodes_of
from workflow_input import make_input_files

Small = Callable[..., Prompt]
BEGIN = -10


@pytest.fixture(scope="module")
def listed(server: HostServer) -> dict[str, dict[str, Any]]:
    """The pack's blueprints by name, each as the page loads it."""
    found = server.get("/global_subgraphs").items()
    ours = {told["name"]: key for key, told in found if told["info"]["node_pack"] == f"custom_nodes.{PACK_NAME}"}
    return {name: json.loads(server.get(f"/global_subgraphs/{key}")["data"]) for name, key in ours.items()}


def with_blueprint(prompt: Prompt, graph: dict[str, Any], **given: object) -> tuple[Prompt, list[object]]:
    """A copy with the nodes of a blueprint, its inputs given as values or links, and where its outputs are."""
    (inside,), (outer,) = graph["definitions"]["subgraphs"], graph["nodes"]
    names = [row["name"] for row in outer["inputs"]]
    values = dict(
        zip([row["name"] for row in outer["inputs"] if "widget" in row], outer["widgets_values"], strict=True)
    )
    values |= given
    links = {link["id"]: (link["origin_id"], link["origin_slot"]) for link in inside["links"]}
    source = {
        number: values[names[slot]] if start == BEGIN else [f"in_{start}", slot]
        for number, (start, slot) in links.items()
    }
    made = dict(prompt)
    for node in inside["nodes"]:
        places = PageGraph.places(node)
        inputs = {row["name"]: node["widgets_values"][places[row["name"]]] for row in node["inputs"] if "widget" in row}
        inputs |= {row["name"]: source[row["link"]] for row in node["inputs"] if row["link"] is not None}
        made[f"in_{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    return made, [source[row["linkIds"][0]] for row in inside["outputs"]]


def test_the_page_is_given_every_blueprint(listed: dict[str, Any]) -> None:
    assert set(listed) == set(BLUEPRINTS)


def test_a_blueprint_applies_an_adaptor_as_its_two_nodes_do(
    listed: dict[str, Any], small: Small, latent_of: Callable, adaptor_name: str
) -> None:
    prompt = small("text_to_video", batch_size=4)
    expected, _ = latent_of(prompt)
    (sampler,), (checkpoint,) = nodes_of(prompt, "KSampler"), nodes_of(prompt, "CheckpointLoaderSimple")
    for class_type in ("MagicVideo_Apply", "MagicVideo_LoadAdaptor"):
        (gone,) = nodes_of(prompt, class_type)
        del prompt[gone]
    made, (model, _) = with_blueprint(
        prompt, listed["Load and Apply MagicVideo"], model=[checkpoint, 0], adaptor_name=adaptor_name, fps=8.0
    )
    made[sampler]["inputs"]["model"] = model
    assert np.array_equal(latent_of(made)[0], expected)


def test_a_blueprint_draws_a_video_anew(listed: dict[str, Any], small: Small, server: HostServer) -> None:
    prompt = small("video_to_video_controlnet", length=4)
    make_input_files(prompt, server.base / "input")
    kept = ("CheckpointLoaderSimple", "LoadVideo", "GetVideoComponents", "ImageFromBatch", "CreateVideo", "SaveVideo")
    prompt = {number: node for number, node in prompt.items() if node["class_type"] in kept}
    (checkpoint,), (frames,), (video,) = (nodes_of(prompt, kept[place]) for place in (0, 3, 4))
    made, (pictures,) = with_blueprint(
        prompt,
        listed["Video to Video (nothing trained)"],
        model=[checkpoint, 0],
        clip=[checkpoint, 1],
        vae=[checkpoint, 2],
        images=[frames, 0],
        control_net_name=CONTROLNET,
        width=64,
        height=64,
        steps=2,
    )
    made[video]["inputs"]["images"] = pictures
    assert any(name.endswith(".mp4") for name in server.run(made).files())
