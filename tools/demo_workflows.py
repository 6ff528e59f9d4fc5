"""Writes the workflows for the demo model: those of the pack, with its files, its size and a prompt that it knows.

    bash bin/run tools/demo_workflows.py

They run as they are once `bin/demo_files.py` has written the model files, so none asks for a picture or a video: where
the pack's own workflow loads one, the demo's samples it.
"""

import argparse
import json
import uuid
from collections.abc import Callable
from pathlib import Path

from magicvideo.demo.make_clip import ENLARGED, SAMPLING
from magicvideo.demo.model.demo_models import ADAPTOR, CHECKPOINT
from magicvideo.demo.wishes import FPS, PROMPT
from magicvideo.demo.world.sprite_scene import FRAMES, SIDE
from magicvideo.demo.world.subjects import BACKGROUNDS, DIRECTIONS, SUBJECTS
from magicvideo.tools.page_graph import PageGraph
from magicvideo.tools.page_layout import NOTES, Node
from magicvideo.tools.templates import WORKFLOWS, page_form, server_form

# A thing crosses the picture in two seconds, so longer clips need more frames a second to show it on its way.
EXTENDED_FPS, LONG_FPS = 16.0, 32.0
# Of a clip that is extended, continued or trained on: with seed 1 the thing is drawn anew halfway.
FIRST_CLIP_SEED = 2
TEXTS = {"Prompt: what to show": PROMPT, "Positive": PROMPT}
# A ball looks the same whichever way it goes; what has a front must turn around first.
TEXTS_OVER_TIME = {
    "Prompt: what to show": "a ball moving right on a green background",
    "Prompt: what to show then": "a ball moving up on a green background",
}
WORDS = (
    f"The demo model draws {SIDE}x{SIDE} pixels and knows few words. **Subjects**: {', '.join(SUBJECTS)}. "
    f"**Backgrounds**: {', '.join(BACKGROUNDS)}. **Directions**: {', '.join(DIRECTIONS)}."
)
FILES = (
    "## Files\n\nBoth are made by one command in ComfyUI's folder, with the Python that runs ComfyUI:\n\n```\n"
    "python custom_nodes/ComfyUI-MagicVideo/bin/demo_files.py\n```\n\nThen press R in the graph. The files:\n\n```\n"
    f"ComfyUI/models/\n  checkpoints/\n    {CHECKPOINT}\n  magicvideo/\n    {ADAPTOR}\n```\n\n"
    "`bash bin/demo` in the pack's folder makes a clip without any of this. With your own SD1.5 model, use the "
    "template of the same name without *Demo*.\n"
)


def text_to_video(graph: PageGraph) -> str:
    """Makes the workflow the demo's, and gives the note that says what to do."""
    return (
        f"## Text to video, demo model\n\nPress *Run*: the {FRAMES} frames of one clip, in a minute or two on a "
        "processor.\n\n### Change these first\n\n1. **Prompt**: another subject, background, direction.\n"
        "2. **Seed** of *KSampler*.\n3. **strength** of *Apply MagicVideo*: at 0 the frames are separate pictures.\n"
        "4. **fps** of *Apply MagicVideo*; *Create Video* follows.\n"
    )


def prompts_over_time(graph: PageGraph) -> str:
    """Makes the workflow the demo's, and gives the note that says what to do."""
    graph.set(graph.find("EmptyLatentImage"), batch_size=24)
    graph.set_all(fps=EXTENDED_FPS, amount=12)
    return (
        "## Prompts over time, demo model\n\nPress *Run*: 24 frames, of which the first 12 follow the first prompt and "
        "the others the second.\n\n### Change these first\n\n1. **Both prompts**: another direction from frame 12 on."
        "\n2. **amount** of both *Repeat Image Batch*: how many frames each prompt has; together they are `batch_size` "
        "of *Empty Latent Image*.\n"
    )


def long_video(graph: PageGraph) -> str:
    """Makes the workflow the demo's, and gives the note that says what to do."""
    graph.set(graph.find("EmptyLatentImage"), batch_size=4 * FRAMES)
    graph.set_all(fps=LONG_FPS)
    return (
        f"## Long video, demo model\n\nPress *Run*: {4 * FRAMES} frames, four times what the adaptor was trained on, "
        "8 at a time.\n\n### Change these first\n\n1. **Prompt**: another subject, background, direction.\n"
        "2. **Frames**: `batch_size` of *Empty Latent Image*.\n"
        "3. **chunk_frames** of *Causal Windows*: memory changes with it, the clip doesn't.\n"
        f"4. **fps** of *Apply MagicVideo*; *Create Video* follows. At {LONG_FPS:g} a thing needs the whole clip for "
        "its way.\n"
    )


def image_to_video(graph: PageGraph) -> str:
    """Makes the workflow the demo's, and gives the note that says what to do."""
    still = sampled_first(graph, frames=1, names=("LoadImage", "ImageScale", "VAEEncode"))
    graph.connect(graph.find("CheckpointLoaderSimple"), "MODEL", still, "model")
    graph.connect(still, "LATENT", graph.find("MagicVideo_ExpandLatent"), "latent")
    return (
        "## Image to video, demo model\n\nPress *Run*: the image model alone draws a picture, and a clip is made that "
        "begins with it.\n\n### Change these first\n\n1. **Prompt**: it is the picture's and the clip's.\n"
        "2. **Seed** of *KSampler (the first frame)*: another picture.\n"
        "3. **Frames**: `frames` of *Expand Latent to Clip*.\n"
    )


def extend_clip(graph: PageGraph) -> str:
    """Makes the workflow the demo's, and gives the note that says what to do."""
    inputs = ("LoadVideo", "GetVideoComponents", "ImageFromBatch", "ImageScale", "VAEEncode")
    clip = sampled_first(graph, frames=FRAMES, names=inputs)
    graph.connect(graph.find("MagicVideo_CausalWindows"), "MODEL", clip, "model")
    expand = graph.find("MagicVideo_ExpandLatent")
    graph.connect(clip, "LATENT", expand, "latent")
    graph.set(expand, frames=2 * FRAMES, frames_per_clip=FRAMES)
    graph.set_all(fps=EXTENDED_FPS)
    expand["title"] = f"Expand Latent ({FRAMES} to {2 * FRAMES})"
    return (
        f"## Extend a clip, demo model\n\nPress *Run*: a clip of {FRAMES} frames is made, and then {FRAMES} more after "
        f"it. The first {FRAMES} stay exactly as they were.\n\n### Change these first\n\n"
        "1. **Prompt**: another subject, background, direction.\n"
        "2. **frames** of *Expand Latent to Clip*: the whole length.\n"
    )


def loop(graph: PageGraph) -> str:
    """Makes the workflow the demo's, and gives the note that says what to do."""
    return (
        "## Loop, demo model\n\nPress *Run*: 9 frames are sampled as one clip and shown there and back, 16 frames that "
        "end beside their beginning.\n\n### Change these first\n\n"
        "1. **Prompt**: another subject, background, direction.\n2. **Seed** of *KSampler*.\n"
        "3. **Frames**: n in `batch_size` of *Empty Latent Image* and in `frames_per_clip` of *Expand Latent to Clip*, "
        "and 2 n - 2 in its `frames`.\n"
    )


def train_motion(graph: PageGraph) -> str:
    """Puts a clip of the demo model in the place of the user's, and gives the note that says what to do."""
    train, video = graph.find("MagicVideo_Train"), graph.find("LoadVideo")
    checkpoint, caption = graph.find("CheckpointLoaderSimple"), graph.find("PrimitiveString")
    learned = graph.find("MagicVideo_Apply")
    loader = demo_adaptor(graph, learned, checkpoint)
    apply = graph.add_like(learned, "Apply MagicVideo (demo motion)", loader)
    sampler = graph.add_like(graph.find("KSampler"), "KSampler (the clip to learn)", video)
    decode = graph.add_like(graph.find("VAEDecode"), "VAE Decode (the clip)", caption)
    graph.remove(video)
    graph.connect(checkpoint, "MODEL", apply, "model")
    graph.connect(loader, "adaptor", apply, "adaptor")
    graph.connect(apply, "MODEL", sampler, "model")
    graph.connect(graph.find("CLIPTextEncode", "Positive"), "CONDITIONING", sampler, "positive")
    graph.connect(graph.find("CLIPTextEncode", "Negative"), "CONDITIONING", sampler, "negative")
    graph.connect(graph.find("EmptyLatentImage"), "LATENT", sampler, "latent_image")
    graph.connect(sampler, "LATENT", decode, "samples")
    graph.connect(checkpoint, "VAE", decode, "vae")
    graph.connect(decode, "IMAGE", train, "images")
    for follower in (train, learned):
        graph.connect(apply, "fps", follower, "fps")
    graph.set(sampler, seed=FIRST_CLIP_SEED)
    settings = "rank = 16\nsample_every = 50\nvalidate_every = 50\nsample_steps = 10"
    graph.set(train, name="demo_motion", steps=100, learning_rate=1e-4, settings=settings)
    graph.set(caption, value=PROMPT)
    graph.join_groups("Image model", "Your clip and what it shows", "Model and a clip to learn")
    return (
        "## Train a motion, demo model\n\nPress *Run*: a clip is made, an adaptor learns it from nothing, and a clip "
        "is made with that. It takes some minutes on a processor.\n\n### Change these first\n\n"
        "1. **What it shows**: it is the prompt of both clips and the caption for training.\n"
        "2. **steps** of *Train MagicVideo Adaptor*: more bring it closer to the clip.\n\n"
        "### While it runs\n\nThe node shows a sample clip now and then. The stop button saves; queue again and it "
        "goes on.\n\nThe adaptor is also a file: `models/magicvideo/demo_motion_00001.safetensors`.\n"
    )


MAKERS: dict[str, Callable[[PageGraph], str]] = {
    maker.__name__: maker
    for maker in (text_to_video, prompts_over_time, long_video, image_to_video, extend_clip, loop, train_motion)
}


def sampled_first(graph: PageGraph, frames: int, names: tuple[str, ...]) -> Node:
    """Puts a sampler in the place of nodes that load a file, with the prompt of the graph's own."""
    what = "the first frame" if frames == 1 else f"first {frames} frames"
    sampler = graph.add_like(graph.find("KSampler"), f"KSampler ({what})", graph.find(names[-1]))
    empty = PageGraph(page_form("text_to_video")).find("EmptyLatentImage")
    latent = graph.add_like(empty, f"Empty Latent ({what})", sampler)
    for name in names:
        graph.remove(graph.find(name))
    for source, name in (("Prompt: what to show", "positive"), ("Prompt: what to avoid", "negative")):
        graph.connect(graph.find("CLIPTextEncode", source), "CONDITIONING", sampler, name)
    graph.connect(latent, "LATENT", sampler, "latent_image")
    graph.set(latent, batch_size=frames)
    graph.set(sampler, seed=FIRST_CLIP_SEED)
    return sampler


def demo_adaptor(graph: PageGraph, apply: Node, behind: Node) -> Node:
    """A loader with the demo's adaptor in it, not linked yet."""
    row = {"localized_name": "adaptor_name", "name": "adaptor_name", "type": "COMBO"}
    out = {"localized_name": "adaptor", "name": "adaptor", "type": "MAGICVIDEO_ADAPTOR", "slot_index": 0}
    like = apply | {
        "type": "MagicVideo_LoadAdaptor",
        "inputs": [row | {"widget": {"name": "adaptor_name"}}],
        "outputs": [out],
        "properties": apply["properties"] | {"Node name for S&R": "MagicVideo_LoadAdaptor"},
        "widgets_values": [ADAPTOR],
    }
    return graph.add_like(like, "Load MagicVideo Adaptor", behind)


def enlarge(graph: PageGraph) -> None:
    """Puts between decoder and video what makes each pixel a sharp square."""
    video = graph.find("CreateVideo")
    decode = graph.source(video, "images")
    scale = PageGraph(page_form("image_to_video")).find("ImageScale")
    large = graph.add_like(scale, "Upscale Image (sharp pixels)", decode)
    graph.set(large, upscale_method="nearest-exact", width=ENLARGED, height=ENLARGED, crop="disabled")
    graph.connect(decode, "IMAGE", large, "image")
    graph.connect(large, "IMAGE", video, "images")


def demo_graph(name: str) -> PageGraph:
    """The demo's form of a workflow."""
    graph = PageGraph(page_form(name))
    graph.graph["id"] = str(uuid.uuid5(uuid.UUID(graph.graph["id"]), "demo"))
    checkpoint = graph.find("CheckpointLoaderSimple")
    checkpoint["title"] = "Load Checkpoint (the demo's)"
    del checkpoint["properties"]["models"]
    for untrained in [node for node in graph.graph["nodes"] if node["type"] == "MagicVideo_NewAdaptor"]:
        apply = graph.find("MagicVideo_Apply")
        graph.connect(demo_adaptor(graph, apply, untrained), "adaptor", apply, "adaptor")
        graph.remove(untrained)
    graph.set_all(ckpt_name=CHECKPOINT, width=SIDE, height=SIDE, fps=FPS)
    graph.set_all("SaveVideo", filename_prefix=f"magicvideo/demo_{name}")
    told = MAKERS[name](graph)
    graph.set_all("EmptyLatentImage", width=SIDE, height=SIDE)
    graph.set_all("KSampler", **SAMPLING)
    texts = TEXTS_OVER_TIME if name == "prompts_over_time" else TEXTS
    for encoder in [node for node in graph.graph["nodes"] if node["type"] == "CLIPTextEncode"]:
        graph.set(encoder, text=texts.get(encoder["title"], ""))
    enlarge(graph)
    write_notes(graph, told)
    graph.number_in_order()
    graph.lay_out()
    return graph


def write_notes(graph: PageGraph, told: str) -> None:
    """Two notes, whatever the pack's own workflow has: what to do, and where the files are."""
    first, files, *others = (node for node in graph.graph["nodes"] if node["type"] in NOTES)
    first["widgets_values"] = [f"{told}\n### Words\n\n{WORDS}\n"]
    files["widgets_values"] = [FILES]
    for other in others:
        graph.remove(other)


def files_of(name: str) -> dict[Path, str]:
    """Both forms of the demo's workflow, by their place."""
    graph = demo_graph(name)
    forms = {page_form(f"demo_{name}"): graph.graph, server_form(f"demo_{name}"): graph.prompt()}
    return {path: json.dumps(form, indent=2, ensure_ascii=False) + "\n" for path, form in forms.items()}


def main() -> None:
    argparse.ArgumentParser(description="Writes the workflows for the demo model.").parse_args()
    for name in MAKERS:
        for path, text in files_of(name).items():
            path.write_text(text, encoding="utf-8")
            print(f"workflows/{path.relative_to(WORKFLOWS)}")


if __name__ == "__main__":
    main()
