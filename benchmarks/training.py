"""What a training step costs: a full-size SD1.5 UNet with random weights, the trainer's way against the naive way.

    bash bin/run benchmarks/training.py [--size 16] [--frames 16] [--rounds 3] [--ways "ours, bf16" ...]

Naive: frames encoded anew at every step, all activations kept, gradients through the base's weights, fp32.  Ours:
cached latents, activations computed again, the base frozen; in fp32, and in bf16 where the processor has it.  Each way
runs in a process of its own, in turn, round after round; prints medians, their ratio to the first way, and the peak
memory of the steps (Linux; loading, where two copies of the UNet lie in memory, is not counted).
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from torch import Tensor

from magicvideo.adaptor_unet.host.hosted import adaptor_for
from magicvideo.adaptor_unet.host.training_unet import training_device
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.processes import accelerator
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.watchers import Watcher
from magicvideo.benchmarks.overhead import random_model
from magicvideo.benchmarks.own_process import measured_apart
from magicvideo.benchmarks.peak_memory import forget_peak, peak_mebibytes
from magicvideo.benchmarks.training_memory import AUTOENCODER
from magicvideo.tests.support import small_host
from magicvideo.trainer.motion_training import MotionTraining, Output, RunParts

WAYS = {
    "naive": {"cached": False, "base_gradients": True, "checkpointing": False, "precision": "fp32"},
    "ours, fp32": {"cached": True, "base_gradients": False, "checkpointing": True, "precision": "fp32"},
    "ours, bf16": {"cached": True, "base_gradients": False, "checkpointing": True, "precision": "bf16"},
}
# One clip a step and no stills; nothing is looked at between steps.
SETTINGS = {"steps": 2, "still_share": 0.0, "sample_every": 0, "validate_every": 0}
# Options that each way's process is given too.
ASKED = ("size", "frames", "frame_noise_levels", "rank")


def random_autoencoder() -> torch.nn.Module:
    """The full-size autoencoder of SD1.5 with random weights: what it computes costs the same."""
    made = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.02)
    return made.eval().requires_grad_(False)


@dataclass(frozen=True)
class EncodedAnew(MemoryClips):
    """A clip of a trainer without a cache: its ``pictures``, ``f c h w``, are encoded at every step."""

    autoencoder: torch.nn.Module
    pictures: Tensor

    def __getitem__(self, item: int) -> LatentClip:
        with torch.no_grad():
            latents = torch.cat([self.autoencoder.encode(picture) for picture in self.pictures.split(1)])
        return replace(self.clips[item], latents=latents.clamp(-3, 3))


class Cost(Watcher):
    """The seconds of the last step and the peak memory of all so far, before anything is saved.

    ``unet`` is a base whose gradients no optimiser takes away.
    """

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.unet: torch.nn.Module | None = None

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        self.found = {"seconds": values["seconds"], "mebibytes": peak_mebibytes()}
        if self.unet is not None:
            self.unet.zero_grad(set_to_none=True)


def training_clips(options: argparse.Namespace, cached: bool) -> TrainingClips:
    """One clip of random numbers."""
    text = torch.randn(77, small_host.SMALL["context_dim"])
    clip = LatentClip(torch.randn(options.frames, 4, options.size, options.size), 8.0, text)
    pictures = torch.rand(options.frames, 3, 8 * options.size, 8 * options.size) * 2 - 1
    train = MemoryClips((clip,)) if cached else EncodedAnew((clip,), random_autoencoder(), pictures)
    return TrainingClips(train, (clip,), torch.zeros_like(text))


def measure(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of one step after a first one, which warms up, and the peak memory of both in MiB."""
    how, cost = WAYS[way], Cost()
    model = random_model(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        parts = RunParts(
            model=model,
            clips=training_clips(options, how["cached"]),
            settings=TrainingSettings(
                **SETTINGS,
                frame_noise_levels=options.frame_noise_levels,
                checkpointing=how["checkpointing"],
                precision=how["precision"],
            ),
            output=Output(Path(folder, "adaptor"), Path(folder, "base"), Path(folder, "run")),
            accelerator=accelerator(cpu=training_device().type == "cpu"),
            watchers=lambda done: [cost],
            export=lambda *_: None,
        )
        training = MotionTraining(parts, adaptor_for(model, "random", frames=options.frames, rank=options.rank))
        del model, parts, training.model  # the trainer's own copy is what counts in all ways
        if how["base_gradients"]:
            cost.unet = training.denoiser.unet.requires_grad_(True)
        forget_peak()
        training.train()
    return cost.found


def in_its_own_process(way: str, options: argparse.Namespace) -> dict[str, float]:
    """What ``measure`` finds, in a process of its own."""
    given = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in ASKED]
    return measured_apart(__file__, "--way", way, *given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=16, help="latent height and width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frame-noise-levels", default="one_a_clip", help="finished_frames is the trainer's default")
    parser.add_argument("--rank", type=int, default=0, help="of temporal attention, 0 for full")
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=WAYS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for _ in range(options.rounds):
        for way, values in found.items():
            values.append(in_its_own_process(way, options))
    first = {name: statistics.median(row[name] for row in found[options.ways[0]]) for name in ("seconds", "mebibytes")}
    told = f"{options.rounds} rounds, {options.frame_noise_levels}, rank {options.rank}"
    print(f"{options.frames} frames, {options.size}x{options.size} latents, {told}")
    print("| | median s a step | ratio | peak MiB | ratio |\n|---|---|---|---|---|")
    for way, rows in found.items():
        seconds, peak = (statistics.median(row[name] for row in rows) for name in ("seconds", "mebibytes"))
        slower, larger = seconds / first["seconds"], peak / first["mebibytes"]
        print(f"| {way} | {seconds:.1f} | {slower:.2f} | {peak:.0f} | {larger:.2f} |")


if __name__ == "__main__":
    main()
