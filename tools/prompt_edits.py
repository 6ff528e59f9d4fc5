"""Changes to an API-form workflow: nodes are found by what they are and how they are linked, not by number."""

import copy
import json
from pathlib import Path
from typing import Any

from magicvideo.tools.host_server import Prompt


def read_prompt(path: Path) -> Prompt:
    """The workflow in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def nodes_of(prompt: Prompt, class_type: str) -> list[str]:
    """Numbers of all nodes of a class."""
    return [number for number, node in prompt.items() if node["class_type"] == class_type]


def frame_rate(prompt: Prompt) -> float:
    """Frames a second of the one video that a prompt makes, from the node that says it."""
    (video,) = nodes_of(prompt, "CreateVideo")
    rate = prompt[video]["inputs"]["fps"]
    while is_link(rate):
        rate = prompt[rate[0]]["inputs"]["fps"]
    return rate


def with_inputs(prompt: Prompt, class_type: str | None = None, **values: object) -> Prompt:
    """A copy in which every node (of that class) that has such an input has this value; links stay links."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if class_type in (None, node["class_type"]):
            known = {name: value for name, value in values.items() if not is_link(node["inputs"].get(name, []))}
            node["inputs"].update({name: value for name, value in known.items() if name in node["inputs"]})
    return changed


def with_text(prompt: Prompt, text: str) -> Prompt:
    """A copy with another positive prompt: the text that the samplers' positive input leads back to."""
    changed = copy.deepcopy(prompt)
    for node in prompt.values():
        if is_link(node["inputs"].get("positive", [])):
            source = node["inputs"]["positive"][0]
            if prompt[source]["class_type"] == "CLIPTextEncode":
                changed[source]["inputs"]["text"] = text
    return changed


def with_title(prompt: Prompt, title: str, **values: object) -> Prompt:
    """A copy in which the nodes of that title have these inputs."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if node.get("_meta", {}).get("title") == title:
            node["inputs"].update(values)
    return changed


def with_adaptor_file(prompt: Prompt, name: str) -> Prompt:
    """A copy in which each adaptor, new or from a file, comes from this file."""
    changed = copy.deepcopy(prompt)
    for class_type in ("MagicVideo_NewAdaptor", "MagicVideo_LoadAdaptor"):
        for number in nodes_of(prompt, class_type):
            changed[number] = {"class_type": "MagicVideo_LoadAdaptor", "inputs": {"adaptor_name": name}}
    return changed


def with_enlarged(prompt: Prompt, side: int) -> Prompt:
    """A copy in which the frames of each video are enlarged to so many pixels, each pixel a sharp square."""
    changed = copy.deepcopy(prompt)
    for number in nodes_of(prompt, "CreateVideo"):
        frames = prompt[number]["inputs"]["images"]
        settings = {"upscale_method": "nearest-exact", "width": side, "height": side, "crop": "disabled"}
        changed[f"{number}_large"] = {"class_type": "ImageScale", "inputs": {"image": frames, **settings}}
        changed[number]["inputs"]["images"] = [f"{number}_large", 0]
    return changed


def with_animated_picture(prompt: Prompt, prefix: str, fps: float) -> Prompt:
    """A copy that also saves the frames of each video as an animated WebP, which any web page shows."""
    changed = copy.deepcopy(prompt)
    for number in nodes_of(prompt, "CreateVideo"):
        frames = prompt[number]["inputs"]["images"]
        settings = {"filename_prefix": prefix, "fps": fps, "lossless": True, "quality": 90, "method": "default"}
        changed[f"{number}_webp"] = {"class_type": "SaveAnimatedWEBP", "inputs": {"images": frames, **settings}}
    return changed


def is_link(value: Any) -> bool:  # noqa: ANN401 - any input of any node
    """Whether an input's value is another node's output: its number and which of its outputs."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
