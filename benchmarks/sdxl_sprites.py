"""Whether a network in SDXL's layout learns motion as the demo's does, and where its temporal attention is best.

    bash bin/run benchmarks/sdxl_sprites.py [--base-steps 1500] [--steps 400] [--seeds 2] [--arms "first block" ...]
    bash bin/run benchmarks/sdxl_sprites.py --table        only prints what was measured

A narrow network of SDXL's kind (two blocks a transformer, none on the first level, a vector beside the timestep) is
trained from nothing on the frames of sprite clips as stills. Then it stays as it is, and an adaptor learns the clips:
with temporal attention behind every block of a transformer, and behind the first of each. An untrained one is the
control. Each result is a line in ``--results``; what stands there is not measured again, and a training that was cut
off goes on.
"""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import comfy.model_base
import comfy.supported_models
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from magicvideo.adaptor_unet.host.caption_tensor import SIZE_CHANNELS, CaptionTensor
from magicvideo.adaptor_unet.host.hosted import adaptor_for
from magicvideo.adaptor_unet.sites import AttentionAt
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.terminal import Terminal
from magicvideo.benchmarks.distillation import FPS, real_clips
from magicvideo.benchmarks.results import Column, arms_table, measure_missing, read_results
from magicvideo.benchmarks.sprite_judge import SpriteJudge, few_words
from magicvideo.benchmarks.trained_arm import measured, train
from magicvideo.demo.measure.judge_motion import asked_clips
from magicvideo.demo.model import narrow_layers
from magicvideo.demo.model.compact_checkpoint import unet_settings
from magicvideo.demo.model.make_checkpoint import VAE
from magicvideo.demo.model.narrow_unet import patcher_of
from magicvideo.demo.model.small_autoencoder import load_autoencoder
from magicvideo.demo.train import motion, motion_module
from magicvideo.demo.world.sprite_painter import couples, load_sprites
from magicvideo.trainer.motion_training import MotionTraining

# SDXL's layout, as narrow and as shallow as sprites of 64x64 pixels allow.
LAYOUT = {
    "model_channels": 128,
    "channel_mult": (1, 2),
    "transformer_depth": [0, 2],
    "transformer_depth_output": [2, 2, 0, 0],
    "transformer_depth_middle": 2,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}
UNTRAINED = "untrained"
ARMS: dict[str, AttentionAt] = {UNTRAINED: "every_block", "every block": "every_block", "first block": "first_block"}
COLUMNS: list[Column] = [
    ("parameters", "parameters", "{:,.0f}"),
    ("direction right", "right", "{:.0f} %"),
    ("smooth", "smooth", "{:.0f} %"),
    ("travel, pixels", "travel", "{:.1f}"),
    ("loss given finished frames: high noise", "val_given_high", "{:.5f}"),
    ("low noise", "val_given_low", "{:.4f}"),
]
BASE = {"base_tuning": "full", "base_still_share": 1.0, "base_rate": 1e-3, "batch": 8, "clips_at_once": 8}
MOTION = {"base_tuning": "frozen", "base_still_share": 0.0, "frame_noise_levels": "finished_frames", "ema": 0.98}


def narrow_sdxl(weights: dict[str, Tensor] | None = None) -> ModelPatcher:
    """The network in ComfyUI's hands; without weights, freshly initialised."""
    settings = unet_settings(LAYOUT["model_channels"]) | LAYOUT
    config = comfy.supported_models.SDXL(settings)
    config.unet_config, config.manual_cast_dtype = settings, None
    config.custom_operations = narrow_layers  # which begin with random weights
    return patcher_of(comfy.model_base.SDXL(config, device="cpu"), weights)


def told(prompt: str) -> Tensor:
    """(n + r) d: the known words of a prompt, and their sum for the vector beside the timestep."""
    words = few_words(prompt)
    return joined(words, words.sum(dim=0))


def joined(words: Tensor, summed: Tensor) -> Tensor:
    """n d and d -> (n + r) d, as a run keeps captions."""
    vector = LAYOUT["adm_in_channels"] - SIZE_CHANNELS
    return CaptionTensor(words.shape[1], vector).joined(words, pad(summed, (0, vector - len(summed))))


@dataclass(frozen=True)
class Comparison:
    """What all arms share."""

    clips: TrainingClips
    judge: SpriteJudge
    settings: TrainingSettings
    base_steps: int
    folder: Path

    def base(self) -> dict[str, Tensor]:
        """The image network, trained on the clips' frames as stills."""
        settings = replace(self.settings, **BASE, steps=self.base_steps, warm_up=100)
        training = self._training(narrow_sdxl(), "base", "every_block", settings)
        train(training)
        return load_file(training.output.base)

    def measure(self, base: dict[str, Tensor], arm: str, seed: int) -> dict[str, object]:
        """Trains and measures one arm with one seed; an untrained adaptor is the same with all."""
        settings = replace(self.settings, **MOTION, seed=seed)
        training = self._training(narrow_sdxl(base), f"{arm.replace(' ', '_')}_{seed}", ARMS[arm], settings)
        network = training.run.trainables.network
        if arm != UNTRAINED:
            train(training)
        judged, losses = measured(training.run, self.judge, network)
        numbers = sum(parameter.numel() for parameter in network.parameters())
        return {"arm": arm, "seed": seed, "parameters": numbers} | judged | losses

    def _training(
        self, model: ModelPatcher, name: str, attention_at: AttentionAt, settings: TrainingSettings
    ) -> MotionTraining:
        frames = len(self.clips.train[0].latents)
        parts = motion.narrow_parts(
            model,
            self.clips,
            settings,
            self.folder / name,
            lambda done: [] if name.startswith(UNTRAINED) else [Terminal(settings.steps, done)],
        )
        adaptor = adaptor_for(model, seed=settings.seed, frames=frames, attention_at=attention_at)
        return MotionTraining(parts, adaptor)


def sdxl_clips(path: Path, frames: int, held_out: int) -> TrainingClips:
    """The clips of a file, with captions as SDXL reads them."""
    clips = real_clips(path, frames)

    def as_sdxl(clip: LatentClip) -> LatentClip:
        return replace(clip, text=told(clip.caption))

    train = MemoryClips(tuple(as_sdxl(clips.train[item]) for item in range(len(clips.train))))
    empty = joined(clips.empty_text, clips.empty_text[0])
    return TrainingClips(train, tuple(map(as_sdxl, clips.held_out[:held_out])), empty)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains adaptors on a narrow network in SDXL's layout.")
    parser.add_argument("--base-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=32, help="held-out clips on which the losses are measured")
    parser.add_argument("--asked", type=int, default=32, help="clips that are sampled to judge directions")
    parser.add_argument("--clips", type=Path, default=motion_module.CLIPS)
    parser.add_argument("--results", type=Path, default=Path(".demo/sdxl_sprites/results.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    options = parser.parse_args()
    results = read_results(options.results)
    if not options.table:
        comparison = comparison_of(options)
        base, seeds = comparison.base(), range(options.seeds)
        wanted = ({"arm": arm, "seed": seed} for seed in seeds for arm in options.arms if arm != UNTRAINED or not seed)
        results = measure_missing(options.results, wanted, partial(comparison.measure, base))
    print(arms_table(ARMS, COLUMNS, results))


def comparison_of(options: argparse.Namespace) -> Comparison:
    """What the command asks for."""
    clips = sdxl_clips(options.clips, options.frames, options.held_out)
    asked = asked_clips(couples(load_sprites(Path(".demo/sprites"))), options.asked, (FPS,))
    shape = tuple(clips.train[0].latents.shape)
    judge = SpriteJudge(load_autoencoder(VAE), asked, clips.empty_text, shape, text=told)
    fixed = {"steps": options.steps, "validate_every": 0, "save_every": 50, "warm_up": 20}
    return Comparison(
        clips=clips,
        judge=judge,
        settings=replace(motion.SETTINGS, **fixed),
        base_steps=options.base_steps,
        folder=options.results.parent,
    )


if __name__ == "__main__":
    main()
