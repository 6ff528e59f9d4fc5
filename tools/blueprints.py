"""Writes the subgraph blueprints: usual chains of the workflows as one node each, where ComfyUI looks for a pack's.

    bash bin/run tools/blueprints.py

ComfyUI lists each `subgraphs/NAME.json` of a pack, and its page offers it by that name among all nodes. A blueprint is
cut out of a workflow: links that are cut become inputs and outputs, and so do the widgets that are to be asked for.
"""

import argparse
import copy
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from magicvideo.tools.host_server import PACK
from magicvideo.tools.page_graph import PageGraph
from magicvideo.tools.page_layout import Node, around, outer_box
from magicvideo.tools.templates import page_form

FOLDER, CATEGORY = PACK / "subgraphs", "MagicVideo"
# Numbers by which the page knows where a subgraph begins and ends.
BEGIN, END = -10, -20
ROW, BESIDE, WIDTH, NODE_WIDTH = 20, 100, 150, 320


@dataclass(frozen=True)
class Blueprint:
    """A part of a workflow.

    ``holds``: types of its nodes.  ``asks_for``: its widgets, each as the beginning of a node's title, the widget's
    name and the name that is shown.  ``renamed``: other names for inputs and outputs of links.  ``sets``: values other
    than the workflow's, by widget.
    """

    template: str
    description: str
    aliases: tuple[str, ...]
    holds: tuple[str, ...]
    asks_for: tuple[tuple[str, str, str], ...]
    renamed: dict[str, str] = field(default_factory=dict)
    sets: dict[str, object] = field(default_factory=dict)


BLUEPRINTS = {
    "Load and Apply MagicVideo": Blueprint(
        "demo_text_to_video",
        "Loads a trained video adaptor and makes a Stable Diffusion model treat a batch as the frames of one clip.",
        ("animate", "text to video", "motion"),
        ("MagicVideo_LoadAdaptor", "MagicVideo_Apply"),
        (
            ("Load MagicVideo", "adaptor_name", "adaptor_name"),
            ("Apply MagicVideo", "strength", "strength"),
            ("Apply MagicVideo", "fps", "fps"),
        ),
        sets={"fps": 0.0, "adaptor_name": "my_motion_00001.safetensors"},  # as train_motion saves it
    ),
    "Load and Apply Motion Module": Blueprint(
        "motion_module_text_to_video",
        "Loads a public motion module and makes a Stable Diffusion 1.5 model treat a batch as the frames of one clip.",
        ("animatediff", "animate", "text to video"),
        ("MagicVideo_LoadMotionModule", "MagicVideo_ApplyMotionModule"),
        (
            ("Load Motion Module", "module_name", "module_name"),
            ("Apply Motion Module", "strength", "strength"),
        ),
    ),
    "Video to Video (nothing trained)": Blueprint(
        "video_to_video_controlnet",
        "Draws the frames of a video anew with a Stable Diffusion 1.5 model and a ControlNet, and holds them together.",
        ("vid2vid", "restyle video", "video to video"),
        (
            "MagicVideo_DirectedAttention",
            "MagicVideo_AlignFrames",
            "MagicVideo_FrameNoise",
            "CLIPTextEncode",
            "ImageScale",
            "Canny",
            "ControlNetLoader",
            "ControlNetApplyAdvanced",
            "VAEEncode",
            "CFGGuider",
            "KSamplerSelect",
            "BasicScheduler",
            "SamplerCustomAdvanced",
            "VAEDecode",
        ),
        (
            ("Prompt: what to show", "text", "prompt"),
            ("Prompt: what to avoid", "text", "negative_prompt"),
            ("Load ControlNet", "control_net_name", "control_net_name"),
            ("Upscale Image", "width", "width"),
            ("Upscale Image", "height", "height"),
            ("Basic Scheduler", "steps", "steps"),
            ("Basic Scheduler", "denoise", "denoise"),
            ("CFG Guider", "cfg", "cfg"),
            ("Frame Noise", "noise_seed", "noise_seed"),
        ),
        {"image": "images"},
    ),
}


@dataclass
class Port:
    """An input or output of a subgraph: what it is called, its type and value, and the inner ends of its links."""

    name: str
    type: str
    ends: list[tuple[int, int]]
    value: object = None
    is_widget: bool = False


def inner_nodes(graph: PageGraph, blueprint: Blueprint) -> list[Node]:
    """Copies of a workflow's nodes that the blueprint holds."""
    return [copy.deepcopy(node) for node in graph.graph["nodes"] if node["type"] in blueprint.holds]


def ports(graph: PageGraph, blueprint: Blueprint, inner: dict[int, Node]) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs: of links that are cut, one for each source, and of the widgets that are asked for."""
    entering: dict[tuple[int, int], Port] = {}
    leaving: dict[tuple[int, int], Port] = {}
    for _, start, out, end, slot, kind in graph.graph["links"]:
        if start in inner and end not in inner:
            name = inner[start]["outputs"][out]["name"]
            leaving.setdefault((start, out), Port(blueprint.renamed.get(name, name), kind, [(start, out)]))
        elif end in inner and start not in inner:
            name = inner[end]["inputs"][slot]["name"]
            port = entering.setdefault((start, out), Port(blueprint.renamed.get(name, name), kind, []))
            port.ends.append((end, slot))
    widgets = []
    for title, name, shown in blueprint.asks_for:
        node = titled(inner, title)
        slot = next(i for i, row in enumerate(node["inputs"]) if row["name"] == name)
        kind, ends = node["inputs"][slot]["type"], [(node["id"], slot)]
        widgets.append(Port(shown, kind, ends, graph.value(node, name), is_widget=True))
    return [*entering.values(), *widgets], list(leaving.values())


def titled(inner: dict[int, Node], title: str) -> Node:
    """The one node whose title begins so."""
    (found,) = (node for node in inner.values() if node["title"].startswith(title))
    return found


def made(name: str, blueprint: Blueprint) -> dict[str, Any]:
    """The blueprint as the page reads it: a graph of one node, and that node's subgraph."""
    graph = PageGraph(page_form(blueprint.template))
    graph.set_all(**blueprint.sets)
    inner = {node["id"]: node for node in inner_nodes(graph, blueprint)}
    inputs, outputs = ports(graph, blueprint, inner)
    number = str(uuid.uuid5(uuid.UUID(graph.graph["id"]), name))
    left, top, width, height = around(map(outer_box, inner.values()))
    links = inner_links(graph, inner, inputs, outputs)
    subgraph = {
        "id": number,
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": max(inner),
            "lastLinkId": max(link["id"] for link in links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": BEGIN, "bounding": [left - BESIDE - WIDTH, top, WIDTH, 2 * ROW + ROW * len(inputs)]},
        "outputNode": {"id": END, "bounding": [left + width + BESIDE, top, WIDTH, 2 * ROW + ROW * len(outputs)]},
        "inputs": rows(number, "input", inputs, links, [left - BESIDE, top]),
        "outputs": rows(number, "output", outputs, links, [left + width + BESIDE, top]),
        "widgets": [],
        "nodes": list(inner.values()),
        "groups": [],
        "links": links,
        "extra": {},
        "category": CATEGORY,
        "description": blueprint.description,
    }
    return {
        "id": str(uuid.uuid5(uuid.UUID(number), "blueprint")),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [outer_node(number, name, inputs, outputs)],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {"BlueprintDescription": blueprint.description, "BlueprintSearchAliases": list(blueprint.aliases)},
        "version": 0.4,
    }


def outer_node(number: str, name: str, inputs: list[Port], outputs: list[Port]) -> Node:
    """The node that stands for the subgraph."""
    widgets = [port for port in inputs if port.is_widget]
    return {
        "id": 1,
        "type": number,
        "pos": [0, 0],
        "size": [NODE_WIDTH, ROW * (2 + len(inputs)) + 4 * len(widgets)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "title": name,
        "inputs": [
            {"name": port.name, "type": port.type, "link": None}
            | ({"widget": {"name": port.name}} if port.is_widget else {})
            for port in inputs
        ],
        "outputs": [{"name": port.name, "type": port.type, "links": []} for port in outputs],
        "properties": {"cnr_id": "comfyui-magicvideo"},
        "widgets_values": [port.value for port in widgets],
    }


def inner_links(
    graph: PageGraph, inner: dict[int, Node], inputs: list[Port], outputs: list[Port]
) -> list[dict[str, Any]]:
    """All links inside, numbered anew, and their numbers written into the nodes."""
    ends = [
        (start, out, end, slot) for _, start, out, end, slot, _ in graph.graph["links"] if {start, end} <= set(inner)
    ]
    ends += [(BEGIN, place, *end) for place, port in enumerate(inputs) for end in port.ends]
    ends += [(*end, END, place) for place, port in enumerate(outputs) for end in port.ends]
    for node in inner.values():
        for row in node["inputs"]:
            row["link"] = None
        for row in node["outputs"]:
            row["links"] = []
    made = []
    for number, (start, out, end, slot) in enumerate(ends, 1):
        kind = inner[start]["outputs"][out]["type"] if start in inner else inputs[out].type
        made.append(
            {
                "id": number,
                "origin_id": start,
                "origin_slot": out,
                "target_id": end,
                "target_slot": slot,
                "type": kind,
            }
        )
        if start in inner:
            inner[start]["outputs"][out]["links"].append(number)
        if end in inner:
            inner[end]["inputs"][slot]["link"] = number
    return made


def rows(
    number: str, side: str, ports: list[Port], links: list[dict[str, Any]], place: list[float]
) -> list[dict[str, Any]]:
    """A subgraph's inputs or outputs, with the links at each."""
    end, at = (("origin_id", "origin_slot"), BEGIN) if side == "input" else (("target_id", "target_slot"), END)
    return [
        {
            "id": str(uuid.uuid5(uuid.UUID(number), f"{side} {port.name}")),
            "name": port.name,
            "type": port.type,
            "linkIds": [link["id"] for link in links if (link[end[0]], link[end[1]]) == (at, slot)],
            "pos": [place[0], place[1] + ROW * (1 + slot)],
        }
        for slot, port in enumerate(ports)
    ]


def files() -> dict[str, str]:
    """Each blueprint's text by the name of its file."""
    return {
        f"{name}.json": json.dumps(made(name, blueprint), indent=2, ensure_ascii=False) + "\n"
        for name, blueprint in BLUEPRINTS.items()
    }


def main() -> None:
    argparse.ArgumentParser(description="Writes the subgraph blueprints.").parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"subgraphs/{name}")


if __name__ == "__main__":
    main()
