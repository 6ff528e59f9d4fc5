"""Workflows cut short for a CPU, and the pictures and videos that their loaders ask for."""

import copy
from pathlib import Path

import av
import numpy as np

from magicvideo.tools.host_server import Prompt
from magicvideo.tools.prompt_edits import is_link, nodes_of, with_inputs

# The long workflows ask for many more frames; their chunks have 8, and what they extend has 16.
MORE_THAN_TWO_CHUNKS = 18
FEW = 6


def short(prompt: Prompt) -> Prompt:
    """A copy with few frames, and so small windows, and little training; a still stays one picture."""
    most = MORE_THAN_TWO_CHUNKS if nodes_of(prompt, "MagicVideo_CausalWindows") else FEW
    # Of pictures that are repeated, there are half as many for each of two prompts.
    prompt = with_at_most(prompt, batch_size=most, frames=most, length=most, amount=most // 2, context_length=8)
    prompt = with_at_most(prompt, frames_per_clip=most)
    settings = "sample_every = 0\nvalidate_every = 0\ndraws_per_clip = 1\nrank = 4\ninit = 'random'"
    return with_inputs(prompt, "MagicVideo_Train", frames=FEW // 2, settings=settings)


def with_at_most(prompt: Prompt, **limits: int) -> Prompt:
    """A copy in which numbers of these names are no greater than this; smaller ones and links stay."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        for name in limits.keys() & node["inputs"].keys():
            if not is_link(node["inputs"][name]):
                node["inputs"][name] = min(node["inputs"][name], limits[name])
    return changed


def make_input_files(prompt: Prompt, folder: Path, frames: int = 16, size: int = 64) -> None:
    """Pictures and videos under the names that the workflow's loaders ask for."""
    folder.mkdir(exist_ok=True)
    pictures = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)
    for number in nodes_of(prompt, "LoadImage"):
        write_frames(folder / prompt[number]["inputs"]["image"], pictures[:1], "png", "rgb24")
    for number in nodes_of(prompt, "LoadVideo"):
        write_frames(folder / prompt[number]["inputs"]["file"], pictures, "libx264", "yuv420p")


def write_frames(path: Path, pictures: np.ndarray, codec: str, pixels: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="image2" if codec == "png" else None) as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
