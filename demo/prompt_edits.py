"""Changes to an API-form workflow: nodes are found by what they are and how they are linked, not by number."""

import copy
import json
from pathlib import Path
from typing import Any

from host_server import Prompt


def read_prompt(path: Path) -> Prompt:
    return json.loads(path.read_text(encoding="utf-8"))


def nodes_of(prompt: Prompt, class_type: str) -> list[str]:
    """Numbers of all nodes of a class."""
    return [number for number, node in prompt.items() if node["class_type"] == class_type]


def with_inputs(prompt: Prompt, class_type: str | None = None, **values: object) -> Prompt:
    """A copy in which every node (of that class) that has such an input has this value; links stay links."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if class_type in (None, node["class_type"]):
            known = {name: value for name, value in values.items() if not _is_link(node["inputs"].get(name, []))}
            node["inputs"].update({name: value for name, value in known.items() if name in node["inputs"]})
    return changed


def with_text(prompt: Prompt, text: str) -> Prompt:
    """A copy with another positive prompt: the text that the samplers' positive input leads back to."""
    changed = copy.deepcopy(prompt)
    for node in prompt.values():
        if _is_link(node["inputs"].get("positive", [])):
            source = node["inputs"]["positive"][0]
            if prompt[source]["class_type"] == "CLIPTextEncode":
                changed[source]["inputs"]["text"] = text
    return changed


def with_new_adaptors(prompt: Prompt, frames: int) -> Prompt:
    """A copy in which each adaptor from a file is an untrained one, for when no trained file exists."""
    changed = copy.deepcopy(prompt)
    for number in nodes_of(prompt, "MagicVideo_LoadAdaptor"):
        user = next(node for node in prompt.values() if node["inputs"].get("adaptor", [None])[0] == number)
        settings = {"model": user["inputs"]["model"], "frames": frames, "rank": 0, "init": "spatial", "seed": 0}
        changed[number] = {"class_type": "MagicVideo_NewAdaptor", "inputs": settings}
    return changed


def with_animated_picture(prompt: Prompt, prefix: str, fps: float) -> Prompt:
    """A copy that also saves the frames of each video as an animated WebP, which any web page shows."""
    changed = copy.deepcopy(prompt)
    for number in nodes_of(prompt, "CreateVideo"):
        frames = prompt[number]["inputs"]["images"]
        settings = {"filename_prefix": prefix, "fps": fps, "lossless": False, "quality": 90, "method": "default"}
        changed[f"{number}_webp"] = {"class_type": "SaveAnimatedWEBP", "inputs": {"images": frames, **settings}}
    return changed


def _is_link(value: Any) -> bool:  # noqa: ANN401 - any input of any node
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
