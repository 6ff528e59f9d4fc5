"""Trains a motion module of the public structure on the demo's clips: narrow, two-way, on the frozen image network.

    bash bin/run demo/train/motion_module.py

The clips are those of make_sprite_clips.py, at 8 frames a second alone (demo/README.md). It is trained as public ones
are: at AnimateDiff's noise schedule, with one noise level a clip, at one frame rate, of which it is not told. Stopped
at any time, the same command goes on. ``FOLDER/module.safetensors`` is what *Load Motion Module* takes for AnimateDiff
v3, of a UNet as narrow as the demo's image network is before it is padded; it is for benchmarks/distillation.py, whose
teacher it is.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from magicvideo.adaptor_unet.host.noise_schedule import sampled_like
from magicvideo.adaptor_unet.motion_module import MotionModule, MotionModuleConfig, position_encoding
from magicvideo.adaptor_unet.training.data.latent_clip import TrainingClips
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.terminal import Terminal
from magicvideo.adaptor_unet.training.trainables import Trained
from magicvideo.adaptor_unet.training.watchers import Record, Watcher
from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.make_checkpoint import BASE
from magicvideo.demo.model.narrow_unet import NARROW_CHANNELS, narrow_model
from magicvideo.demo.train import motion
from magicvideo.trainer.motion_training import MotionTraining, RunParts

CLIPS, FOLDER = Path(".demo/training/module_clips.safetensors"), Path(".demo/training/motion_module")
CONFIG = MotionModuleConfig("AnimateDiff v3", (NARROW_CHANNELS, NARROW_CHANNELS), depth=1)
SETTINGS = replace(motion.SETTINGS, steps=3_000, base_tuning="frozen", base_still_share=0.0)


class WholeModule:
    """All weights of a motion module as what a run trains (``Trained``)."""

    shared_noise = 0.0

    def __init__(self, module: MotionModule, settings: TrainingSettings) -> None:
        self.network, self.settings = module.requires_grad_(True), settings
        self.parameters = {f"module.{name}": parameter for name, parameter in module.named_parameters()}
        self.identity = {"module": json.dumps(asdict(module.config))}

    def rate(self, clips: int) -> float:
        return self.settings.rate(clips)

    def optimiser(self, rate: float) -> torch.optim.AdamW:
        group = {"params": [*self.parameters.values()], "lr": rate, "peak": rate}
        return torch.optim.AdamW([group | {"weight_decay": self.settings.weight_decay}])


class ModuleTraining(MotionTraining):
    """A run that trains a motion module itself, at its noise schedule."""

    def __init__(self, parts: RunParts, module: MotionModule) -> None:
        model = sampled_like(parts.model, module.config.kind, "The trainer")
        super().__init__(replace(parts, model=model), module)

    def check_fit(self, model: ModelPatcher) -> None:
        """The first call of the UNet refuses what does not fit."""

    def made_trainables(self, device: torch.device) -> Trained:
        return WholeModule(self.network.to(device, torch.float32), self.settings)


def new_module(seed: int = 0) -> MotionModule:
    """A motion module that adds nothing yet, as public ones were begun."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = MotionModule(CONFIG)
    with torch.no_grad():
        for transformer in module.transformers().values():
            transformer.proj_out.weight.zero_()
            transformer.proj_out.bias.zero_()
    return module


def public_tensors(module: MotionModule) -> dict[str, Tensor]:
    """A module's tensors under AnimateDiff's names, with the tables of positions that its files have."""
    found = {}
    for place, channels in module.places().items():
        for name, tensor in module.get_submodule(place).state_dict().items():
            found[f"{place}.temporal_transformer.{name}"] = tensor
        table = rearrange(position_encoding(module.config.positions, channels), "f c -> 1 f c")
        for number in (0, 1):
            attention = f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.{number}"
            found[f"{attention}.pos_encoder.pe"] = table.clone()
    return found


def write(path: Path, trained: WholeModule, step: int, final: bool) -> None:
    """Writes the module as *Load Motion Module* takes it."""
    save_tensors(path, public_tensors(trained.network), {"format": "pt", "ss_steps": str(step)})


def module_training(
    clips: TrainingClips, settings: TrainingSettings, folder: Path, base: Path, watchers: list[Watcher]
) -> MotionTraining:
    """The run that trains a new module; it goes on where it was stopped."""
    parts = motion.narrow_parts(
        narrow_model(load_file(base)),
        clips,
        settings,
        folder,
        lambda done: watchers or [Terminal(settings.steps, done), Record(folder / "run", done, clips.sample_fps)],
        export=partial(write, folder / "module.safetensors"),
    )
    return ModuleTraining(parts, new_module(settings.seed))


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains a motion module on the demo's clips.")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--rate", type=float, default=SETTINGS.learning_rate, help="highest learning rate")
    parser.add_argument("--clips", type=Path, default=CLIPS)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    settings = replace(SETTINGS, steps=options.steps, learning_rate=options.rate)
    clips = motion.training_clips([options.clips])
    return motion.trained_to_the_end(module_training(clips, settings, options.folder, options.base, []))


if __name__ == "__main__":
    sys.exit(main())
