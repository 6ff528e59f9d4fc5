"""Whether a MotionLoRA of one clip repeats its motion on other subjects: on the demo's narrow network.

    bash bin/run benchmarks/motion_lora.py [--steps 200] [--rank 16] [--asked 16]
    bash bin/run benchmarks/motion_lora.py --table        only prints what was measured

demo/train/motion_module.py trains the motion module. For each direction a MotionLoRA is trained on one clip of one
subject, with a caption that says nothing of motion. Then clips of other subjects are sampled by prompts that say
nothing of it either, from the same noise with and without the LoRA, and it is counted how many go the clip's way. Each
result is a line in ``--results``; what stands there is not measured again.
"""

import argparse
import random
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from magicvideo.adaptor_unet.host.folders import motion_module_in
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.terminal import Terminal
from magicvideo.benchmarks.results import measure_missing, read_results
from magicvideo.benchmarks.sprite_judge import SpriteJudge, few_words
from magicvideo.benchmarks.trained_arm import averages_at_work, train
from magicvideo.demo.measure.judge_motion import Asked, asked_clips
from magicvideo.demo.model.make_checkpoint import BASE, VAE
from magicvideo.demo.model.narrow_unet import narrow_model
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, load_autoencoder
from magicvideo.demo.train import motion, motion_module
from magicvideo.demo.train.make_sprite_clips import encoded_clip
from magicvideo.demo.world.sprite_painter import Painter, load_sprites
from magicvideo.demo.world.sprite_scene import Scene, draw_scene
from magicvideo.demo.world.subjects import DIRECTIONS
from magicvideo.trainer.motion_lora_training import MotionLoraTraining

FPS = 8.0
# Of the scenes that are trained on, and of the clips that are judged.
SCENE_SEED, ASKED_SEED = 7, 300_000
SETTINGS = replace(motion.SETTINGS, batch=1, clips_at_once=1, base_tuning="frozen", base_still_share=0.0)
FIXED = {"warm_up": 10, "ema": 0.9, "validate_every": 0, "save_every": 50, "caption_dropout": 0.1}


@dataclass(frozen=True)
class Repeats:
    """What all directions share."""

    base: dict[str, Tensor]
    module: Path
    painter: Painter
    autoencoder: SmallAutoencoder
    settings: TrainingSettings
    rank: int
    frames: int
    asked: int
    folder: Path

    def measure(self, direction: str) -> dict[str, object]:
        """Trains on one clip of this direction; shares of others that go its way, without the LoRA and with it."""
        scene = scene_of(direction, self.painter, self.frames)
        clip = self._clip(scene)
        clips = TrainingClips(MemoryClips((clip,)), (clip,), torch.zeros_like(clip.text))
        parts = motion.narrow_parts(
            narrow_model(self.base),
            clips,
            self.settings,
            self.folder / direction,
            lambda done: [Terminal(self.settings.steps, done)],
            resume=False,
            export=lambda *_: None,
        )
        module = motion_module_in(self.module)
        training = MotionLoraTraining(parts, module, rank=self.rank, layout="animatediff")
        judge = SpriteJudge(
            self.autoencoder, self._asked(direction, scene), clips.empty_text, tuple(clip.latents.shape)
        )
        run = training.run
        with averages_at_work(run):  # which are what the LoRA begins as
            before = judge.shares(run.denoiser, run.trainables.network)
        train(training)
        with averages_at_work(run):
            after = judge.shares(run.denoiser, run.trainables.network)
        return {"direction": direction, "subject": scene.subject, "before": before, "after": after}

    def _clip(self, scene: Scene) -> LatentClip:
        told = Asked(scene.subject, scene.background, str(scene.direction), FPS, 0, still=True).prompt
        latents = encoded_clip(self.autoencoder, self.painter.clip(scene, self.frames))
        return LatentClip(latents, FPS, few_words(told), told)

    def _asked(self, direction: str, scene: Scene) -> list[Asked]:
        """Other subjects, of which nothing is said but what they are; judged by the clip's direction."""
        asked = asked_clips(self.painter.couples, 2 * self.asked, (FPS,), ASKED_SEED)
        others = [clip for clip in asked if clip.subject != scene.subject][: self.asked]
        return [replace(clip, direction=direction, still=True) for clip in others]


def scene_of(direction: str, painter: Painter, frames: int) -> Scene:
    """The first scene of that direction that is drawn."""
    generator = random.Random(SCENE_SEED)
    while (scene := draw_scene(generator, painter.couples, frames, (FPS,))).direction != direction:
        pass
    return scene


def table(results: list[dict[str, object]]) -> str:
    """Markdown: a line for each direction, and their mean."""
    lines = ["| direction of the clip | its subject | others go so: module alone | with the LoRA | travel, pixels |"]
    lines.append("|---|---|---|---|---|")
    whole = {"direction": "mean", "subject": ""} | {
        when: {name: statistics.fmean(result[when][name] for result in results) for name in ("right", "travel")}
        for when in ("before", "after")
    }
    for result in (*results, whole):
        before, after = result["before"], result["after"]
        lines.append(
            f"| {result['direction']} | {result['subject']} | {before['right']:.0%} | {after['right']:.0%} "
            f"| {before['travel']:.1f}, {after['travel']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures whether a MotionLoRA of one clip repeats its motion.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16, help="as many as the module was trained with")
    parser.add_argument("--asked", type=int, default=16, help="clips that are sampled for each direction")
    parser.add_argument("--module", type=Path, default=motion_module.FOLDER / "module.safetensors")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--results", type=Path, default=Path(".demo/motion_lora/results.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    options = parser.parse_args()
    results = read_results(options.results)
    if not options.table:
        settings = replace(SETTINGS, **FIXED, steps=options.steps, learning_rate=options.rate)
        painter, folder = Painter(load_sprites(Path(".demo/sprites"))), options.results.parent
        repeats = Repeats(
            base=load_file(options.base),
            module=options.module,
            painter=painter,
            autoencoder=load_autoencoder(VAE),
            settings=settings,
            rank=options.rank,
            frames=options.frames,
            asked=options.asked,
            folder=folder,
        )
        wanted = ({"direction": direction} for direction in DIRECTIONS)
        results = measure_missing(options.results, wanted, repeats.measure)
    print(table(results) if results else "Nothing was measured yet.")


if __name__ == "__main__":
    main()
