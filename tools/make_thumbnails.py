"""Runs each workflow with the demo model and saves what it makes as its picture in the template browser.

    bash bin/run tools/make_thumbnails.py [WORKFLOW...]
    bash bin/run tools/make_thumbnails.py --steps 2      a first look: too few steps to be good, of training too
    COMFYUI_PATH=... bash bin/run tools/make_thumbnails.py

A picture is an animated WebP under the name that the page asks for, which ends in .jpg: a browser shows a picture by
what is in it. For the demo model there are no LoRA and no ControlNet. Workflows with these run with a random one at
strength 0, so their pictures show the rest. Nor is there a motion module or an SDXL model: what
these do is drawn.
"""

import argparse
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

from magicvideo.demo.make_clip import SAMPLING, host_flags, stop_in_order
from magicvideo.demo.model.demo_models import ADAPTOR, CHECKPOINT, ensure_models
from magicvideo.demo.wishes import FPS
from magicvideo.demo.world.sprite_scene import SIDE
from magicvideo.tools.demo_workflows import EXTENDED_FPS, LONG_FPS
from magicvideo.tools.drawn_thumbnails import DRAWN, draw_thumbnail
from magicvideo.tools.host_in_process import find_host
from magicvideo.tools.host_server import PACK, HostServer, Prompt
from magicvideo.tools.make_random_checkpoint import write_random
from magicvideo.tools.prompt_edits import (
    frame_rate,
    nodes_of,
    read_prompt,
    with_adaptor_file,
    with_animated_picture,
    with_inputs,
    with_text,
    with_title,
)
from magicvideo.tools.templates import TITLES, page_form, server_form

BASE = PACK / ".demo"
RANDOM = "random.safetensors"
ACROSS = 256  # pixels of a thumbnail
MOST_FRAMES = 32  # of longer clips every second frame is shown, or fewer
QUALITY = 80


@dataclass(frozen=True)
class Shown:
    """What one of the pack's own workflows is to show.

    ``source``: the workflow that makes a clip to begin with.  ``later_prompt``: of the later frames, where it has two.
    """

    prompt: str
    fps: float = FPS
    source: str | None = None
    source_prompt: str = ""
    later_prompt: str = ""


SHORT, LONG = "demo_text_to_video", "demo_long_video"
# No two alike. The demo's workflows run as they are.
SHOWN = {
    "text_to_video": Shown("a balloon moving up on a pink background"),
    "text_to_video_lora": Shown("a fish moving right on a green background"),
    "text_to_video_controlnet": Shown("a car moving left on a yellow background", source=SHORT),
    "prompts_over_time": Shown(
        "an apple moving left on a blue background", later_prompt="an apple moving up on a blue background"
    ),
    "long_video": Shown("a turtle moving right on a purple background", LONG_FPS),
    "long_video_controlnet": Shown("a ship moving left on an orange background", LONG_FPS, LONG),
    "extend_clip": Shown("a bee moving left on a white background", EXTENDED_FPS, SHORT),
    "loop": Shown("a robot moving right on an orange background"),
    "image_to_video": Shown("a heart moving down on a yellow background", source=SHORT),
    "train_motion": Shown("a star moving up on a black background", source=SHORT),
    "video_to_video": Shown(
        "a fish moving left on a purple background",
        source=SHORT,
        source_prompt="a fish moving left on a blue wall",
    ),
    "video_to_video_controlnet": Shown(
        "a ball moving right on a green background", source=SHORT, source_prompt="an apple moving right on a green wall"
    ),
    "long_video_to_video_controlnet": Shown(
        "a panda moving left on a pink background", LONG_FPS, LONG, "a cat moving left on a pink background"
    ),
}


def with_demo_models(prompt: Prompt, shown: Shown) -> Prompt:
    """The workflow with the demo's files, at its size."""
    prompt = with_text(with_adaptor_file(prompt, ADAPTOR), shown.prompt)
    if shown.later_prompt:
        prompt = with_title(prompt, "Prompt: what to show", text=shown.prompt)
        prompt = with_title(prompt, "Prompt: what to show then", text=shown.later_prompt)
    prompt = with_inputs(prompt, ckpt_name=CHECKPOINT, width=SIDE, height=SIDE, fps=shown.fps, **SAMPLING)
    prompt = with_inputs(prompt, "MagicVideo_Train", steps=100, settings="rank = 16\nsample_every = 0")
    prompt = with_inputs(prompt, "PrimitiveString", value=shown.prompt)
    prompt = with_inputs(prompt, lora_name=RANDOM, strength_model=0.0, strength_clip=0.0, control_net_name=RANDOM)
    return with_inputs(prompt, "ControlNetApplyAdvanced", strength=0.0)


@dataclass(frozen=True)
class Maker:
    """Runs workflows; ``steps`` in the place of what they say, for a first look."""

    server: HostServer
    steps: int | None = None

    def thumbnail(self, name: str) -> Path:
        """Makes a workflow's picture and says where it is."""
        path = page_form(name).with_suffix(".jpg")
        if name in DRAWN:
            return draw_thumbnail(name, path)
        prompt = read_prompt(server_form(name))
        if name in SHOWN:
            shown = SHOWN[name]
            prompt = with_demo_models(prompt, shown)
            if shown.source:
                self._make_source(prompt, shown)
            fps = shown.fps
        else:
            fps = frame_rate(prompt)
        save_thumbnail(self._run(prompt, fps)[1], path, fps)
        return path

    def _make_source(self, prompt: Prompt, shown: Shown) -> None:
        """Puts a clip of the demo model, and its first frame, under the names that the workflow's loaders ask for."""
        source = read_prompt(server_form(shown.source))
        source = with_inputs(with_text(source, shown.source_prompt or shown.prompt), fps=shown.fps)
        video, animation = self._run(source, shown.fps)
        for number in nodes_of(prompt, "LoadVideo"):
            shutil.copyfile(video, self.server.base / "input" / prompt[number]["inputs"]["file"])
        for number in nodes_of(prompt, "LoadImage"):
            with Image.open(animation) as frames:
                frames.convert("RGB").save(self.server.base / "input" / prompt[number]["inputs"]["image"])

    def _run(self, prompt: Prompt, fps: float) -> tuple[Path, Path]:
        """The video that a prompt leaves, and the same as an animation."""
        if self.steps is not None:
            prompt = with_inputs(prompt, steps=self.steps)
        prompt = with_animated_picture(prompt, "thumbnail", fps)
        files = [self.server.output / name for name in self.server.run(prompt, seconds=3600).files()]
        (video,) = (path for path in files if path.suffix == ".mp4")
        (animation,) = (path for path in files if path.suffix == ".webp")
        return video, animation


def save_thumbnail(animation: Path, path: Path, fps: float) -> None:
    """Saves an animation enlarged; each pixel that the model drew stays a sharp square."""
    with Image.open(animation) as frames:
        large = [
            frame.convert("RGB").resize((ACROSS, ACROSS), Image.Resampling.NEAREST)
            for frame in ImageSequence.Iterator(frames)
        ]
    step = -(-len(large) // MOST_FRAMES)
    first, *rest = large[::step]
    duration = round(1000 * step / fps)
    unfinished = path.with_suffix(".unfinished")  # a server that is running may hand it out at any moment
    first.save(
        unfinished, "WEBP", save_all=True, append_images=rest, duration=duration, loop=0, quality=QUALITY, method=6
    )
    unfinished.replace(path)


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflows", nargs="*", default=list(TITLES), metavar="WORKFLOW", help="default: all")
    parser.add_argument("--steps", type=int, help="of sampling and training, default: as many as a workflow says")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_in_order)
    ensure_models(BASE)
    for kind, folder in (("lora", "loras"), ("controlnet", "controlnet")):
        write_random(BASE / "models" / folder / RANDOM, kind)
    with HostServer(find_host(), BASE, BASE / "thumbnails", host_flags()) as server:
        for name in options.workflows:
            path = Maker(server, options.steps).thumbnail(name)
            print(f"workflows/{path.name} ({path.stat().st_size / 1000:.0f} kB)", flush=True)


if __name__ == "__main__":
    main()
