"""What ``bin/train`` does, once the host is there."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..adaptor_unet.adaptor import VideoAdaptor
from ..adaptor_unet.checkpoint import load
from ..adaptor_unet.host.base_model import check_fit
from ..adaptor_unet.host.hosted import adaptor_for
from ..adaptor_unet.host.training_files import BaseCheckpoint
from ..adaptor_unet.host.training_unet import training_device
from ..adaptor_unet.training.data.cache_files import read_hash
from ..adaptor_unet.training.data.latent_clip import TrainingClips
from ..adaptor_unet.training.data.prepare import clips_of_folder, clips_of_shards
from ..adaptor_unet.training.data.shards import check_new, write_shards
from ..adaptor_unet.training.loop import processes
from ..adaptor_unet.training.run_lock import run_lock
from ..adaptor_unet.training.run_state import states
from ..adaptor_unet.training.settings import RunSettings
from ..adaptor_unet.training.terminal import Terminal
from ..adaptor_unet.training.watchers import Record, TensorBoard, Watcher
from ..adaptor_unet.whole_file import check_writable
from .motion_training import MotionTraining, Output

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

ENDING = ".safetensors"
GRAPH = """
A graph that uses it: put {name} into ComfyUI's models/magicvideo, then

  Load Checkpoint ({base}) -> Apply MagicVideo -> KSampler -> VAE Decode -> Create Video ({fps:g} fps) -> Save Video
  Load MagicVideo Adaptor ({name}) -> Apply MagicVideo (fps {fps:g})
  CLIP Text Encode: {caption!r}
  Empty Latent Image {width}x{height}, batch {frames} -> KSampler

or open the template "text_to_video" of the pack and choose {name} in it."""


@dataclass(frozen=True)
class TrainCommand:
    """The files of one command; each is what the option of its name says."""

    base: Path
    clips: Path | None
    shards: Path | None
    output: Path
    cache: Path | None = None
    write_shards: Path | None = None
    resume: bool = False
    tensorboard: bool = False

    def train(self, settings: RunSettings) -> bool:
        """Trains; False when it was stopped before its end.  Raises ValueError or TrainingError with a sentence."""
        output = self._output()
        base = BaseCheckpoint(self.base)
        # All that can be refused is refused before clips are encoded.
        if self.write_shards:
            check_new(self.write_shards)
            adaptor = None
        else:
            adaptor = self._adaptor(settings, base)
            check_fit(base.model, adaptor.config)
        with processes(cpu=training_device().type == "cpu") as place, self._alone(output, place):
            clips = self._clips(settings, base, place)
            if self.write_shards:
                if place.is_main_process:
                    index = write_shards(clips.train, self.write_shards, clips.empty_text)
                    logger.info("Wrote %d clips to %s.", len(clips.train), index.parent)
                return True
            return self._train(settings, base, adaptor, clips, output, place)

    def _alone(self, output: Output, place: "Accelerator") -> AbstractContextManager[None]:
        """Keeps other trainings out of the output; only the first process writes there."""
        writes = place.is_main_process and not self.write_shards
        return run_lock(output.folder) if writes else nullcontext()

    def _train(
        self,
        settings: RunSettings,
        base: BaseCheckpoint,
        adaptor: VideoAdaptor,
        clips: TrainingClips,
        output: Output,
        place: "Accelerator",
    ) -> bool:
        used = asdict(settings) | {"base_model": base.fingerprint}
        training = MotionTraining(
            base.model,
            adaptor,
            clips,
            settings.training,
            output,
            place,
            partial(self._watchers, settings.training.steps, clips.sample_fps, output.folder, place),
            resume=self.resume,
            encoders=lambda: base.encoders,
            used=used,
            run_identity={"base_model": base.fingerprint} | self._start(settings),
        )
        finished = training.train()
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
        path, folder = self.output.with_name(name + ENDING), self.output.with_name(f"{name}.run")
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

    def _clips(self, settings: RunSettings, base: BaseCheckpoint, place: "Accelerator") -> TrainingClips:
        """On the first process first, which fills the cache."""
        if self.shards:
            return clips_of_shards(self.shards, settings.training.validation_clips)
        with place.main_process_first():
            bar = tqdm(unit="clip", disable=not place.is_main_process, dynamic_ncols=True)
            return clips_of_folder(
                self.clips,
                settings.clips,
                0 if self.write_shards else settings.training.validation_clips,
                self.cache or self.output.parent / "cache",
                lambda: base.encoders,
                base.fingerprint,
                partial(show, bar),
            )

    def _adaptor(self, settings: RunSettings, base: BaseCheckpoint) -> VideoAdaptor:
        if settings.adaptor.start:
            return load(Path(settings.adaptor.start))
        return adaptor_for(base.model, **settings.adaptor_settings)

    def _start(self, settings: RunSettings) -> dict[str, str]:
        """What the run's adaptor begins as, beside its settings."""
        start = settings.adaptor.start
        return {"start": read_hash(Path(start)) if start else "", "init": settings.adaptor.init}

    def _tell(self, finished: bool, settings: RunSettings, clips: TrainingClips, adaptor: Path) -> None:
        logger.info("%s %s.", "Wrote" if finished else "Stopped; saved what there is in", adaptor)
        told = {"name": adaptor.name, "base": self.base.name, "fps": clips.sample_fps}
        told["caption"] = clips.held_out[0].caption
        size = {"width": settings.clips.width, "height": settings.clips.height, "frames": settings.clips.frames}
        logger.info(GRAPH.format(**told, **size))


def show(bar: tqdm, done: int, total: int, name: str) -> None:
    """Which clip is being encoded, so that a stall has a name."""
    bar.total, bar.n = total, done
    bar.set_description_str(f"encoding {name}", refresh=True)
