"""Which inputs of a workflow the page shows in its app mode: the few that a person changes first, and the video.

The page reads them from the graph file and checks each: a node by its number, a widget by its name.
"""

from typing import Any

# In the order in which they are asked for: type of a node, how its title begins, name of a widget.
ASKED_FOR = (
    ("CheckpointLoaderSimple", "", "ckpt_name"),
    ("MagicVideo_LoadMotionModule", "", "module_name"),
    ("MagicVideo_LoadAdaptor", "", "adaptor_name"),
    ("LoadVideo", "", "file"),
    ("LoadImage", "", "image"),
    ("PrimitiveString", "", "value"),
    ("CLIPTextEncode", "Prompt: what to show", "text"),
    ("MagicVideo_ExpandLatent", "", "frames"),
    ("EmptyLatentImage", "", "batch_size"),
    ("ImageFromBatch", "", "length"),
    ("BasicScheduler", "", "denoise"),
    ("MagicVideo_FrameNoise", "", "noise_seed"),
    ("KSampler", "", "seed"),
)
SHOWN = "SaveVideo"


def app_mode(graph: dict[str, Any]) -> dict[str, list[Any]]:
    """What the page keeps as a graph's ``linearData``."""
    inputs = [
        [node["id"], name]
        for type, title, name in ASKED_FOR
        for node in sorted(graph["nodes"], key=lambda node: node["order"])
        if node["type"] == type and node["title"].startswith(title) and _is_open(node, name)
    ]
    return {"inputs": inputs, "outputs": [node["id"] for node in graph["nodes"] if node["type"] == SHOWN]}


def _is_open(node: dict[str, Any], name: str) -> bool:
    """Whether a node has such a widget and nothing is linked to it."""
    return any(row["name"] == name and "widget" in row and row["link"] is None for row in node["inputs"])
