"""The training node's own way, in this process: a small image model, quick encoders, the server's progress hook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from einops import reduce, repeat
from small_host import SMALL, build_model
from torch import Tensor

from magicvideo.adaptor_unet.host.folders import TrainingFolders
from magicvideo.adaptor_unet.host.training_files import HostEncoders
from magicvideo.adaptor_unet.training.settings import RunSettings
from magicvideo.trainer.graph import GraphTraining
from magicvideo.trainer.node_inputs import WiredClips

FOLDERS = ("adaptors", "loras", "checkpoints", "runs", "cache", "motion_loras")
FRAMES, SIZE = 2, 32
QUICK = {"frames": FRAMES, "width": SIZE, "height": SIZE, "draws_per_clip": 1, "rank": 4, "init": "random"}
QUICK |= {"steps": 4, "sample_steps": 1, "validation_clips": 1, "precision": "fp32", "checkpointing": False}
QUICK |= {"validate_every": 4, "sample_every": 4}


class QuickVae:
    """Means of 8 by 8 pixels for an autoencoder; ``called`` is told of "encode" and "decode" before each."""

    latent_channels = 4

    def __init__(self, called: Callable[[str], None]) -> None:
        self.called = called

    def encode(self, frames: Tensor) -> Tensor:
        """f h w 3 -> f 4 h w"""
        self.called("encode")
        means = reduce(frames[..., :3], "f (h a) (w b) c -> f c h w", "mean", a=8, b=8)
        return torch.cat([means, means.mean(1, keepdim=True)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        """f 4 h w -> f h w 3"""
        self.called("decode")
        return repeat(latents[:, :3].sigmoid(), "f c h w -> f (h a) (w b) c", a=8, b=8)


class QuickClip:
    """A caption's characters for a text encoder; ``called`` is told of "text" before each."""

    def __init__(self, called: Callable[[str], None]) -> None:
        self.called = called

    def tokenize(self, caption: str) -> str:
        return caption

    def encode_from_tokens_scheduled(self, caption: str) -> list:
        self.called("text")
        generator = torch.Generator().manual_seed(sum(caption.encode()))
        tokens = torch.randn(1, 77 * (1 + len(caption) // 77), SMALL["context_dim"], generator=generator)
        return [[tokens, {"pooled_output": torch.randn(1, 1280, generator=generator)}]]


def quiet(what: str) -> None:
    pass


def moving_square(colour: tuple[float, float, float] = (1.0, 0.0, 0.0), step: tuple[int, int] = (0, 8)) -> Tensor:
    """f h w 3: a square of one colour on black that moves ``step`` pixels down and right from frame to frame."""
    frames = torch.zeros(FRAMES, SIZE, SIZE, 3)
    for place in range(FRAMES):
        top, left = 8 + place * step[0], 8 + place * step[1]
        frames[place, top : top + 8, left : left + 8] = torch.tensor(colour)
    return frames


def graph_training(
    model: ModelPatcher | None = None,
    clips: Path | WiredClips | Literal[False] | None = None,
    called: Callable[[str], None] = quiet,
    encoders: str = "quick",
    motion_module: ModelPatcher | None = None,
    prompts: tuple[str, ...] = (),
    **settings: object,
) -> GraphTraining:
    """What the node makes of its inputs; ``encoders`` stands for the weights of both.  False for no clips at all."""
    model = model or build_model(model_channels=32)
    made = HostEncoders(model, QuickClip(called), QuickVae(called), encoders)
    if clips is None:
        clips = WiredClips(images=[moving_square()], captions=["a square"])
    asked = RunSettings.from_values(QUICK | settings)
    return GraphTraining(model, made, clips or None, asked, "motion", None, motion_module, prompts)


def folders_below(root: Path) -> TrainingFolders:
    return TrainingFolders(*(root / name for name in FOLDERS))


@contextmanager
def server_progress() -> Iterator[None]:
    """The host's progress bars end a node as those of its server do: they raise when the stop button was pressed."""
    before = comfy.utils.PROGRESS_BAR_HOOK

    def hook(*told: object, **named: object) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
        comfy.model_management.interrupt_current_processing(False)


def press_stop() -> None:
    comfy.model_management.interrupt_current_processing(True)
