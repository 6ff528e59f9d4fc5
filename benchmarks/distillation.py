"""What an adaptor learns from a motion module, beside one that learns from real clips: on the demo's narrow network.

    bash bin/run benchmarks/distillation.py [--steps 600] [--seeds 3] [--clips-each 256] [--arms taught ...]
    bash bin/run benchmarks/distillation.py --table        only prints what was measured

demo/train/motion_module.py trains the module, the teacher. Every arm has the same number of clips, steps and seeds:

- taught: the module's clips of prompts, and its predictions, as --prediction-share says
- real clips: as many clips that were drawn
- teacher's clips: the module's clips as if they were drawn, without its predictions

Each is measured on real clips that were held out, and on directions that are asked for, always from the same noise; so
is the teacher. Each result is a line in ``--results``; what stands there is not measured again, and a training that was
cut off goes on.
"""

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from torch import Tensor

from magicvideo.adaptor_unet.host.folders import motion_module_in
from magicvideo.adaptor_unet.host.hosted import adaptor_for
from magicvideo.adaptor_unet.host.teacher import HostTeacher, ModuleTeacher
from magicvideo.adaptor_unet.temporal_network import content_of_network
from magicvideo.adaptor_unet.training.data.cache_files import hash_of
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_cache import FolderClips
from magicvideo.adaptor_unet.training.data.latent_clip import MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.data.teacher_clips import TeacherWork, sampled_clips
from magicvideo.adaptor_unet.training.settings import MotionModuleSettings, TrainingSettings
from magicvideo.adaptor_unet.training.terminal import Terminal, preparing
from magicvideo.adaptor_unet.whole_file import content_name
from magicvideo.benchmarks.results import Column, arms_table, measure_missing, read_results
from magicvideo.benchmarks.sprite_judge import SpriteJudge, few_words
from magicvideo.benchmarks.trained_arm import measured, train
from magicvideo.demo.measure.judge_motion import asked_clips
from magicvideo.demo.model.make_checkpoint import BASE, VAE
from magicvideo.demo.model.narrow_unet import NARROW_HEADS, narrow_model
from magicvideo.demo.model.small_autoencoder import load_autoencoder
from magicvideo.demo.train import motion, motion_module
from magicvideo.demo.world.sprite_painter import couples, load_sprites
from magicvideo.trainer.motion_training import MotionTraining

TEACHER, TAUGHT, REAL, PLAIN = ARMS = ("teacher", "taught", "real clips", "teacher's clips")
COLUMNS: list[Column] = [
    ("direction right", "right", "{:.0f} %"),
    ("smooth", "smooth", "{:.0f} %"),
    ("jumps", "jumps", "{:.0f} %"),
    ("travel, pixels", "travel", "{:.1f}"),
    ("loss: high noise", "val_high", "{:.5f}"),
    ("low noise", "val_low", "{:.4f}"),
    ("given finished frames: high noise", "val_given_high", "{:.5f}"),
    ("low noise", "val_given_low", "{:.4f}"),
]
FPS, SIDE = 8.0, 64
# Far from the seeds of the clips that are judged.
PROMPT_SEED = 500_000


class Words:
    """The few words of a prompt that the demo's text encoder knows, as its training reads them (few_tokens.py)."""

    def text(self, caption: str) -> Tensor:
        """n d"""
        return few_words(caption)


@dataclass(frozen=True)
class Comparison:
    """What all arms share.  ``real`` holds real clips and those held out of them; ``clips_each`` are trained on."""

    base: dict[str, Tensor]
    module: Path
    real: TrainingClips
    judge: SpriteJudge
    settings: TrainingSettings
    shares: MotionModuleSettings
    clips_each: int
    folder: Path

    @cached_property
    def teacher(self) -> ModelPatcher:
        """The motion module of the file."""
        return motion_module_in(self.module)

    def measure(self, arm: str, seed: int) -> dict[str, object]:
        """Trains and measures one arm with one seed; the teacher is only measured, and has no seed of its own."""
        settings = replace(self.settings, seed=seed)
        training = self._training(arm, self._clips(arm), settings, self._shares(arm))
        run = training.run
        if arm == TEACHER:
            teacher = ModuleTeacher(training.denoiser, training.model, self.teacher.model)
            judged, losses = measured(run, self.judge, teacher.module, teacher.denoiser)
        else:
            train(training)
            judged, losses = measured(run, self.judge, run.trainables.network)
        return {"arm": arm, "seed": seed, "steps": 0 if arm == TEACHER else settings.steps} | judged | losses

    def _training(
        self, arm: str, clips: TrainingClips, settings: TrainingSettings, shares: MotionModuleSettings
    ) -> MotionTraining:
        model = narrow_model(self.base)
        frames = len(clips.train[0].latents)
        adaptor = adaptor_for(model, seed=settings.seed, heads=NARROW_HEADS, frames=frames)
        parts = motion.narrow_parts(
            model,
            clips,
            settings,
            self.folder / f"{arm.replace(' ', '_')}_{settings.seed}",
            lambda done: [] if arm == TEACHER else [Terminal(settings.steps, done)],
            resume=arm != TEACHER,
            export=lambda *_: None,
        )
        teacher = self.teacher.model if clips.taught else None
        return MotionTraining(replace(parts, teacher=teacher, shares=shares), adaptor)

    def _shares(self, arm: str) -> MotionModuleSettings:
        return replace(self.shares, prediction_share=0.0) if arm == PLAIN else self.shares

    def _clips(self, arm: str) -> TrainingClips:
        if arm in (REAL, TEACHER):
            train = MemoryClips(tuple(self.real.train[item] for item in range(self.clips_each)))
            return replace(self.real, train=train)
        return replace(self.real, train=self._sampled(), taught=True)

    def _sampled(self) -> FolderClips:
        """One clip of each prompt; all arms and seeds have the same."""
        # A prompt comes again now and then, so more are drawn than are needed.
        asked = asked_clips(couples(load_sprites(Path(".demo/sprites"))), 4 * self.clips_each, (FPS,), PROMPT_SEED)
        prompts = tuple(dict.fromkeys(clip.prompt for clip in asked))[: self.clips_each]
        shape, how = tuple(self.real.train[0].latents.shape), self.shares
        how = replace(how, teacher_clips=-(-self.clips_each // len(prompts)))
        model = motion.few_tokens(narrow_model(self.base))
        base = content_name(sorted(self.base.items()))
        data = DataSettings(frames=shape[0], width=SIDE, height=SIDE)
        work = TeacherWork(prompts, data, how, hash_of(base, content_of_network(self.teacher.model)), "words")
        sampler = HostTeacher.of(model, self.teacher, work.shape, how.teacher_steps, how.teacher_cfg)
        with preparing("the teacher samples") as bar:
            clips = sampled_clips(work, self.folder / "cache", Words, sampler.clip, bar.clip)
        return FolderClips(clips.clips[: self.clips_each], clips.empty_text)


def real_clips(path: Path, frames: int) -> TrainingClips:
    """The clips of a file, all of one frame rate, and those held out, without their later frames."""
    clips = motion.training_clips([path])
    train, held_out = (
        tuple(replace(clip, latents=clip.latents[:frames]) for clip in part if clip.fps == FPS)
        for part in (clips.train.clips, clips.held_out)
    )
    return replace(clips, train=MemoryClips(train), held_out=held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares an adaptor that a motion module taught with others.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--clips-each", type=int, default=256, help="clips that each adaptor is trained on")
    parser.add_argument("--frames", type=int, default=16, help="as many as the module was trained with")
    parser.add_argument("--frame-noise-levels", default="finished_frames")
    parser.add_argument("--prediction-share", type=float, default=0.5)
    parser.add_argument("--teacher-steps", type=int, default=20)
    parser.add_argument("--teacher-cfg", type=float, default=3.0, help="guidance of the teacher's clips")
    parser.add_argument("--held-out", type=int, default=32, help="held-out clips on which the losses are measured")
    parser.add_argument("--asked", type=int, default=32, help="clips that are sampled to judge directions")
    parser.add_argument("--module", type=Path, default=motion_module.FOLDER / "module.safetensors")
    parser.add_argument("--clips", type=Path, default=motion_module.CLIPS)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--results", type=Path, default=Path(".demo/distillation/results.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    options = parser.parse_args()
    results = read_results(options.results)
    if not options.table:
        comparison = comparison_of(options)
        seeds = range(options.seeds)
        wanted = ({"arm": arm, "seed": seed} for seed in seeds for arm in options.arms if arm != TEACHER or not seed)
        results = measure_missing(options.results, wanted, comparison.measure)
    print(arms_table(ARMS, COLUMNS, results))


def comparison_of(options: argparse.Namespace) -> Comparison:
    """What the command asks for."""
    real = real_clips(options.clips, options.frames)
    real = replace(real, held_out=real.held_out[: options.held_out])
    if len(real.train) < options.clips_each:
        raise SystemExit(f"{options.clips} has {len(real.train)} clips to train on, fewer than {options.clips_each}.")
    fixed = {"steps": options.steps, "base_tuning": "frozen", "base_still_share": 0.0, "validate_every": 0}
    fixed |= {"save_every": 50, "warm_up": 20, "ema": 0.98, "frame_noise_levels": options.frame_noise_levels}
    asked = asked_clips(couples(load_sprites(Path(".demo/sprites"))), options.asked, (FPS,))
    shape = tuple(real.train[0].latents.shape)
    judge = SpriteJudge(load_autoencoder(VAE), asked, real.empty_text, shape)
    shares = MotionModuleSettings(
        prediction_share=options.prediction_share,
        teacher_steps=options.teacher_steps,
        teacher_cfg=options.teacher_cfg,
        teacher_fps=FPS,
    )
    settings = TrainingSettings(**{**vars(motion.SETTINGS), **fixed})
    return Comparison(
        base=load_file(options.base),
        module=options.module,
        real=real,
        judge=judge,
        settings=settings,
        shares=shares,
        clips_each=options.clips_each,
        folder=options.results.parent,
    )


if __name__ == "__main__":
    main()
