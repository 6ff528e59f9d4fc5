"""Trains the demo's motion with the pack's own trainer, on the narrow image network.

    bash bin/run demo/train/motion.py                              the base tuned along
    bash bin/run demo/train/motion.py --base-tuning frozen --name frozen
    bash bin/run demo/train/motion.py --name more --base NARROW.safetensors --start ADAPTOR.safetensors

The clips are those of make_sprite_clips.py. Stopped at any time, the same command goes on; with more steps it goes on
for longer, at the rate that the longer run has there. What comes of it lies in ``FOLDER/NAME``: ``adaptor.safetensors``
and, of a base that is tuned along, ``base.safetensors``. Both are narrow; model/padding.py and model/make_checkpoint.py
make of them what ComfyUI loads.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from comfy.model_patcher import ModelPatcher
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from magicvideo.adaptor_unet.adaptor import FrameNoiseLevels, VideoAdaptor
from magicvideo.adaptor_unet.checkpoint import FPS, load, save
from magicvideo.adaptor_unet.host.hosted import adaptor_for
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, TrainingClips, content_of_clips
from magicvideo.adaptor_unet.training.processes import accelerator
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.terminal import Terminal
from magicvideo.adaptor_unet.training.trainables import Trainables, Trained
from magicvideo.adaptor_unet.training.watchers import Record, Watcher
from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.narrow_unet import NARROW_HEADS, narrow_model
from magicvideo.demo.train.encode_stills import word_numbers, word_table
from magicvideo.demo.train.few_tokens import few_token_options
from magicvideo.demo.train.resumable_training import half_precision
from magicvideo.trainer.motion_training import MotionTraining, Output, RunParts

BATCH = 4
HELD_OUT = 32
SETTINGS = TrainingSettings(
    steps=2_000,
    frame_noise_levels="one_a_clip",  # as its first runs were trained; the last one says so for itself
    batch=BATCH,
    clips_at_once=BATCH,
    learning_rate=5e-4,
    base_tuning="full",
    base_rate=2e-4,
    base_still_share=0.1,
    still_share=0.0,
    ema=0.995,
    warm_up=100,
    checkpointing=False,
    save_every=100,
    validate_every=200,
    validation_clips=HELD_OUT,
    sample_every=0,
)
# Settings that the command line may change.
OPTIONS = ("high_noise_share", "frame_noise_levels", "context_timesteps", "fps_guidance", "caption_dropout")


@dataclass(frozen=True)
class SpriteClips:
    """Clips in memory, by number.  As many lie together as a step takes, so that all of a step are of one length."""

    clips: tuple[LatentClip, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        return (BATCH,) * (len(self.clips) // BATCH)

    def __len__(self) -> int:
        return sum(self.groups)

    def __getitem__(self, item: int) -> LatentClip:
        return self.clips[item]

    @property
    def content(self) -> str:
        return content_of_clips(self.clips)


def clips_of(path: Path) -> list[LatentClip]:
    """The clips of a file of make_sprite_clips.py.

    A caption is its few known words (few_tokens.py), ``3 d``.
    """
    table = word_table()
    with safe_open(path, "pt") as file:
        captions = json.loads(file.metadata()["captions"])
        latents, rates = file.get_tensor("latents"), file.get_tensor("fps").tolist()
    texts = [table[word_numbers(caption)] for caption in captions]
    return [LatentClip(*clip) for clip in zip(latents, rates, texts, captions, strict=True)]


def training_clips(paths: list[Path]) -> TrainingClips:
    """What a run learns from: all clips of the files, but for the last of the first file, which are held out."""
    first, *others = (clips_of(path) for path in paths)
    first, held_out = first[:-HELD_OUT], first[-HELD_OUT:]
    whole = [clip for clips in (first, *others) for clip in clips[: len(clips) // BATCH * BATCH]]
    return TrainingClips(SpriteClips(tuple(whole)), tuple(held_out), torch.zeros_like(whole[0].text))


def begun_with(model: ModelPatcher, start: Path | None, rank: int, shared_noise: float | None) -> VideoAdaptor:
    """The adaptor in the file, or a new one; its shared noise stays as it is unless another is given."""
    adaptor = load(start) if start else adaptor_for(model, heads=NARROW_HEADS, rank=rank)
    if shared_noise is not None:
        adaptor.config = replace(adaptor.config, shared_noise=shared_noise)
    return adaptor


def few_tokens(model: ModelPatcher) -> ModelPatcher:
    """A clone of a narrow model that reads a caption's few known words in place of 77 tokens."""
    model = model.clone()
    model.model_options["transformer_options"] = few_token_options(model.model.diffusion_model)
    return model


def narrow_parts(
    model: ModelPatcher,
    clips: TrainingClips,
    settings: TrainingSettings,
    folder: Path,
    watchers: Callable[[int], Sequence[Watcher]],
    resume: bool = True,
    export: Callable[[Trained, int, bool], object] | None = None,
) -> RunParts:
    """Those of a run of the pack's trainer on a narrow model, which reads few tokens.

    It writes narrow files of an adaptor into ``folder``, unless ``export`` writes others.
    """
    output = Output(folder / "adaptor.safetensors", folder / "base.safetensors", folder / "run")
    return RunParts(
        model=few_tokens(model),
        clips=clips,
        settings=settings,
        output=output,
        accelerator=accelerator(cpu=not torch.cuda.is_available()),
        watchers=watchers,
        resume=resume,
        export=export or partial(write, output, clips.usual_fps),
        memory_format=torch.channels_last,
    )


def write(output: Output, fps: float, trainables: Trainables, step: int, final: bool) -> None:
    """Writes the narrow adaptor, which says its usual frame rate, and, if it is tuned, the narrow base."""
    save(trainables.adaptor, output.adaptor, {"ss_steps": str(step), FPS: f"{fps:g}"}, overwrite=True)
    if trainables.settings.base_tuning == "full":
        metadata = {"format": "pt", "title": "image network of the demo model, narrow, tuned on clips"}
        save_tensors(output.base, half_precision(trainables.base.state_dict().items()), metadata)


def trained_to_the_end(training: MotionTraining) -> int:
    """Trains, and gives the process's exit status: 0, or 130 where it was stopped."""
    # Plain attention: on a processor the fused one is slower on the way back.
    with sdpa_kernel(SDPBackend.MATH):
        finished = training.train()
    training.run.accelerator.end_training()
    return 0 if finished else 130


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains the demo's motion adaptor; goes on where it was stopped.")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates; less for a second run")
    parser.add_argument("--base-tuning", choices=("full", "frozen"), default=SETTINGS.base_tuning)
    parser.add_argument("--shared-noise", type=float, help="of the adaptor from now on; without it, as it is")
    parser.add_argument("--high-noise-share", type=float, default=SETTINGS.high_noise_share)
    parser.add_argument("--frame-noise-levels", choices=get_args(FrameNoiseLevels), default=SETTINGS.frame_noise_levels)
    parser.add_argument("--context-timesteps", type=int, default=SETTINGS.context_timesteps)
    parser.add_argument("--fps-guidance", action="store_true", help="clips without a caption have no frame rate either")
    parser.add_argument("--caption-dropout", type=float, default=SETTINGS.caption_dropout)
    parser.add_argument("--name", default="tuned")
    parser.add_argument("--rank", type=int, default=0, help="of T-Attn; 0 for full (default)")
    parser.add_argument("--start", type=Path, help="narrow adaptor to begin from; without it, a new one")
    parser.add_argument("--base", type=Path, default=Path(".demo/training/stills_base.safetensors"))
    parser.add_argument("--folder", type=Path, default=Path(".demo/training/motion"))
    files = [Path(".demo/training") / name for name in ("clips.safetensors", "long_clips.safetensors")]
    parser.add_argument("--clips", type=Path, nargs="+", default=files)
    options = parser.parse_args()
    full = options.base_tuning == "full"
    still_share = SETTINGS.base_still_share if full else 0.0
    changed = {"steps": options.steps, "base_tuning": options.base_tuning, "base_still_share": still_share}
    changed |= {name: getattr(options, name) for name in OPTIONS}
    changed |= {name: options.rate * getattr(SETTINGS, name) for name in ("learning_rate", "base_rate")}
    settings = TrainingSettings(**{**vars(SETTINGS), **changed})
    model = narrow_model(load_file(options.base))
    adaptor = begun_with(model, options.start, options.rank, options.shared_noise)
    clips, folder = training_clips(options.clips), options.folder / options.name

    def watchers(done: int) -> tuple[Watcher, ...]:
        return Terminal(settings.steps, done), Record(folder / "run", done, clips.sample_fps)

    parts = narrow_parts(model, clips, settings, folder, watchers)
    return trained_to_the_end(MotionTraining(parts, adaptor))


if __name__ == "__main__":
    sys.exit(main())
