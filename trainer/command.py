"""What ``bin/train`` does, once the host is there."""

import logging
import os
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..adaptor_unet.checkpoint import load
from ..adaptor_unet.host.base_model import check_text, check_trainable
from ..adaptor_unet.host.folders import motion_module_in
from ..adaptor_unet.host.training_files import BaseCheckpoint
from ..adaptor_unet.host.training_unet import make_room, training_device
from ..adaptor_unet.training.data.clip_files import RUN_ENDING
from ..adaptor_unet.training.data.data_settings import DataSettings
from ..adaptor_unet.training.data.latent_clip import TrainingClips
from ..adaptor_unet.training.data.prepare import clips_of_folder, clips_of_shards, fitting_size, settings_of_shards
from ..adaptor_unet.training.data.shards import check_new, write_shards
from ..adaptor_unet.training.data.teacher_clips import read_prompts
from ..adaptor_unet.training.processes import check_processes, processes
from ..adaptor_unet.training.run_identity import identity_of, lasting_settings
from ..adaptor_unet.training.run_lock import run_lock
from ..adaptor_unet.training.run_state import last_step, states
from ..adaptor_unet.training.setting_fields import settings_of
from ..adaptor_unet.training.settings import FOR_MOTION_LORA, RunSettings
from ..adaptor_unet.training.terminal import LiveBar, Terminal, preparing
from ..adaptor_unet.training.watchers import Record, TensorBoard, Watcher, summary_writer
from ..adaptor_unet.whole_file import check_writable, read_hash
from .motion_training import Output, RunParts, check_able, check_base, is_finished, refuse_finished
from .plans import AdaptorPlan, MotionLoraPlan, Plan, Teaching, begun_adaptor

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

ENDING = ".safetensors"
# What a processor trains where nobody has chosen: a graphics card takes more in less time.
CPU_SIZE, CPU_STEPS = 256, 6
TRIAL = "There is no graphics card, so these are %d steps, to try things; --steps %d trains."
FINISHED = "%s is finished: all %d steps were done before, and nothing was trained now. Raise --steps to go on."
GRAPH = """
A graph that uses it: put {name} into ComfyUI's models/magicvideo, then

  Load Checkpoint ({base}) -> Apply MagicVideo -> KSampler -> VAE Decode -> Create Video ({fps:g} fps) -> Save Video
  Load MagicVideo Adaptor ({name}) -> Apply MagicVideo (fps {fps:g})
  CLIP Text Encode: {caption!r}
  Empty Latent Image {width}x{height}, batch {frames} -> KSampler

or open the template "Text to video, adaptor" of the pack and choose {name} in it."""
LORA_GRAPH = """
A graph that uses it: put {name} into ComfyUI's models/animatediff_motion_lora, then

  Load Motion Module ({module}) -> Load Motion LoRA ({name}) -> Apply Motion Module

in the template "Text to video, motion module" of the pack."""


@dataclass(frozen=True)
class TrainCommand:
    """A run of ``bin/train``: the files of one command, each as the option of its name says."""

    base: Path
    clips: Path | None
    shards: Path | None
    output: Path
    cache: Path | None = None
    write_shards: Path | None = None
    resume: bool = False
    tensorboard: bool = False
    teacher: Path | None = None
    teacher_lora: tuple[tuple[Path, float], ...] = ()
    prompts: Path | None = None
    motion_module: Path | None = None

    def train(self, settings: RunSettings, left_open: Collection[str] = ()) -> bool:
        """Trains; False when it was stopped before its end.

        ``left_open`` names settings that nobody has chosen: width, height and steps then follow from clips and device.
        Raises ValueError, TrainingError or, for a library that is missing, ImportError, each with a sentence.
        """
        self._check_files(settings.motion_module.train)
        settings.check_teacher(self.teacher is not None)
        settings = self._as_in_shards(settings, left_open)
        check_able(settings.training)
        output = self._output()
        with (
            processes(cpu=training_device().type == "cpu") as place,
            self._alone(output, place),
            preparing(f"loading {self.base.name}", quiet=not place.is_main_process) as bar,
        ):
            base = BaseCheckpoint(self.base)
            plan = self._refused_early(settings, base, output, place)
            settings = self._chosen(settings, left_open, bar)
            clips = self._clips(settings, base, plan, place, bar)
            if self.write_shards:
                if place.is_main_process:
                    index = write_shards(
                        clips.train,
                        self.write_shards,
                        clips.empty_text,
                        sources=clips.train.sources,
                        settings=settings.clips,
                    )
                    logger.info("Wrote %d clips to %s.", len(clips.train), index.parent)
                return True
            check_text(base.model, clips.empty_text.shape[1])
            return self._train(settings, base, plan, clips, output, place, bar)

    def _check_files(self, train: str) -> None:
        """Raises ValueError for files that do not go together, before anything is read."""
        if train == "motion_lora":
            if self.teacher or not self.motion_module:
                found = "--teacher" if self.teacher else "neither"
                raise ValueError(
                    "--train motion_lora needs --motion-module FILE, the motion module that the LoRA is for, and no "
                    f"--teacher; found {found}."
                )
            if not (self.clips or self.shards):
                raise ValueError("--train motion_lora needs --clips FOLDER: a clip or a few of the motion.")
        elif self.motion_module:
            raise ValueError("--motion-module goes with --train motion_lora; to learn from a module, say --teacher.")
        if bool(self.teacher) != bool(self.prompts):
            given, missing = ("--teacher", "--prompts") if self.teacher else ("--prompts", "--teacher")
            raise ValueError(
                f"{given} needs {missing} too: a teacher is a motion module, and samples its clips from a text file of "
                "prompts, one a line."
            )
        if self.teacher_lora and not self.teacher:
            raise ValueError("--teacher-lora changes the motion module of --teacher, which is missing.")
        if self.write_shards and (self.teacher or self.motion_module):
            raise ValueError("--write-shards holds clips of your own alone: leave out the motion module.")
        if self.write_shards and self.shards:
            raise ValueError(
                "--write-shards encodes the clips of --clips FOLDER; those of --shards are encoded already."
            )
        if not (self.clips or self.shards or self.teacher):
            raise ValueError("Nothing to learn from: give --clips FOLDER, --shards FOLDER, or --teacher and --prompts.")

    def _refused_early(
        self, settings: RunSettings, base: BaseCheckpoint, output: Output, place: "Accelerator"
    ) -> Plan | None:
        """What to train; all that can be refused is refused here, before a clip is encoded."""
        check_trainable(base.model)
        check_base(base.model, settings.training)
        if self.write_shards:
            check_new(self.write_shards)
            return None
        check_processes(settings.training, place.num_processes)
        if self.tensorboard:
            summary_writer()
        plan = self._plan(settings, base)
        plan.check(settings)
        if states(output.folder):
            last_step(output.folder, lasting_settings(settings.training) | self._identity(settings, base, plan))
        else:
            refuse_finished(output, settings.training)
        return plan

    def _plan(self, settings: RunSettings, base: BaseCheckpoint) -> Plan:
        if self.motion_module:
            return MotionLoraPlan(base.model, motion_module_in(self.motion_module))
        start = load(Path(settings.adaptor.start)) if settings.adaptor.start else None
        adaptor = begun_adaptor(base.model, start, settings)
        return AdaptorPlan(adaptor, self._teaching(base) if self.teacher else None)

    def _teaching(self, base: BaseCheckpoint) -> Teaching:
        """The motion module that teaches, with its MotionLoRAs, and what it is asked for."""
        try:
            prompts = read_prompts(self.prompts.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.prompts} cannot be used: {error}.") from error
        module = motion_module_in(self.teacher, self.teacher_lora)
        return Teaching(base.model, module, prompts, base.fingerprint, base.fingerprint)

    def _as_in_shards(self, settings: RunSettings, left_open: Collection[str]) -> RunSettings:
        """With the settings of clips that shards were written with.  Raises ValueError for others that were chosen."""
        if not self.shards:
            return settings
        ruled = FOR_MOTION_LORA if settings.motion_module.train == "motion_lora" else {}
        chosen = settings_of(DataSettings).keys() - {*left_open, *ruled, "seed"}
        clips = settings_of_shards(self.shards, settings.clips, chosen)
        ruled = {name: value for name, value in ruled.items() if hasattr(clips, name)}
        return replace(settings, clips=replace(clips, **ruled))

    def _chosen(self, settings: RunSettings, left_open: Collection[str], bar: LiveBar) -> RunSettings:
        """The settings with what nobody has chosen: a size no larger than the clips, few steps on a processor."""
        cpu = training_device().type == "cpu"
        if {"width", "height"} <= set(left_open) and not self.shards:
            bar.phase("looking at the sizes of clips")
            most = CPU_SIZE if cpu else settings.clips.width
            size, smallest = fitting_size(self.clips, most) if self.clips else (most, None)
            if size != settings.clips.width:
                reason = f"{smallest.name} is no larger" if smallest else "there is no graphics card"
                logger.info("Trained at %dx%d, because %s; --width and --height choose otherwise.", size, size, reason)
                settings = replace(settings, clips=replace(settings.clips, width=size, height=size))
        if "steps" in left_open and cpu and not self.write_shards:
            logger.info(TRIAL, CPU_STEPS, settings.training.steps)
            settings = replace(settings, training=replace(settings.training, steps=CPU_STEPS))
        return settings

    def _alone(self, output: Output, place: "Accelerator") -> AbstractContextManager[None]:
        """Keeps other trainings out of the output; only the first process writes there."""
        writes = place.is_main_process and not self.write_shards
        return run_lock(output.folder) if writes else nullcontext()

    def _train(
        self,
        settings: RunSettings,
        base: BaseCheckpoint,
        plan: Plan,
        clips: TrainingClips,
        output: Output,
        place: "Accelerator",
        bar: LiveBar,
    ) -> bool:
        bar.phase("comparing with what was saved")
        module = self.teacher or self.motion_module
        used = settings.told(motion_module=module is not None) | {"base_model": base.fingerprint}
        if module is not None:
            used["motion_module"] |= {"file": module.name, "loras": [[file.name, s] for file, s in self.teacher_lora]}
        run_identity = self._identity(settings, base, plan)
        if self.resume:
            whole = identity_of(settings.training, {}, clips, settings.motion_module) | run_identity
            if is_finished(output, settings.training, whole):
                if place.is_main_process:
                    logger.info(FINISHED, output.adaptor, settings.training.steps)
                return True
        bar.phase("copying the model")
        make_room()  # the encoders have done their work

        def watchers(done: int) -> list[Watcher]:
            bar.close()
            return self._watchers(settings.training.steps, clips.sample_fps, output.folder, place, done)

        parts = RunParts(
            model=base.model,
            clips=clips,
            settings=settings.training,
            output=output,
            accelerator=place,
            watchers=watchers,
            resume=self.resume,
            encoders=lambda: base.encoders,
            used=used,
            run_identity=run_identity,
        )
        finished = plan.training(parts, settings).train()
        if place.is_main_process:
            self._tell(finished, settings, clips, output.adaptor)
        return finished

    def _watchers(self, steps: int, fps: float, folder: Path, place: "Accelerator", done: int) -> list[Watcher]:
        """Everybody who was asked for; on other processes than the first, one who only listens for Ctrl-C."""
        watchers: list[Watcher] = [Terminal(steps, done, quiet=not place.is_main_process)]
        if place.is_main_process:
            watchers.append(Record(folder, done, fps))
            if self.tensorboard:
                watchers.append(TensorBoard(folder, fps))
        return watchers

    def _output(self) -> Output:
        name = self.output.name.removesuffix(ENDING)  # no other ending: v1.5 is a name
        if not name.strip("."):
            raise ValueError(f"--output {self.output} names no file: give the adaptor a name, such as waves.")
        path, folder = self.output.with_name(name + ENDING), self.output.with_name(name + RUN_ENDING)
        if self.write_shards:
            return Output(path, path, folder)
        check_writable(path)
        there = [one for one in (path, folder) if os.path.lexists(one)]
        if there and not self.resume:
            raise ValueError(f"{there[0]} is there already: add --resume to go on with it, or choose another --output.")
        if self.resume and path.exists() and not states(folder):
            raise ValueError(
                f"{path} is there already, and {folder} has no state to go on from. It stays as it is: move it away, "
                "or choose another --output."
            )
        if there:
            check_writable(folder / "metrics.jsonl")
        return Output(path, path.with_name(f"{name}_base{ENDING}"), folder)

    def _clips(
        self, settings: RunSettings, base: BaseCheckpoint, plan: Plan | None, place: "Accelerator", bar: LiveBar
    ) -> TrainingClips:
        """On the first process first, which fills the cache."""
        bar.phase("reading clips")
        cache, held = self.cache or self.output.parent / "cache", settings.training.validation_clips
        own = clips_of_shards(self.shards, held) if self.shards else None
        with place.main_process_first():
            if self.clips:
                own = clips_of_folder(
                    self.clips,
                    settings.clips,
                    0 if self.write_shards else held,
                    cache,
                    lambda: base.encoders,
                    base.fingerprint,
                    bar.clip,
                )
            if plan is None:
                return own
            return plan.clips(own, settings, cache, lambda: base.encoders, bar.clip)

    def _identity(self, settings: RunSettings, base: BaseCheckpoint, plan: Plan) -> dict[str, str]:
        """What a resumed run must share with the one before, beside its clips and the settings of the training."""
        return {"base_model": base.fingerprint} | self._start(settings) | plan.identity(settings)

    def _start(self, settings: RunSettings) -> dict[str, str]:
        """What the run's adaptor begins as, beside its settings."""
        if self.motion_module:
            return {}
        start = settings.adaptor.start
        return {"start": read_hash(Path(start)) if start else "", "init": settings.adaptor.init}

    def _tell(self, finished: bool, settings: RunSettings, clips: TrainingClips, adaptor: Path) -> None:
        logger.info("%s %s.", "Wrote" if finished else "Stopped; saved what there is in", adaptor)
        told = {"name": adaptor.name, "base": self.base.name, "fps": clips.usual_fps}
        told["caption"] = clips.held_out[0].caption
        size = {"width": settings.clips.width, "height": settings.clips.height, "frames": settings.clips.frames}
        if self.motion_module:
            logger.info(LORA_GRAPH.format(name=adaptor.name, module=self.motion_module.name))
        else:
            logger.info(GRAPH.format(**told, **size))
