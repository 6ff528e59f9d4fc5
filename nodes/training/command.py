"""What ``bin/train`` does, once the host is there."""

import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ...adaptor_unet.adaptor import VideoAdaptor
from ...adaptor_unet.checkpoint import load
from ...adaptor_unet.host.hosted import adaptor_for
from ...adaptor_unet.host.train_base import BaseCheckpoint
from ...adaptor_unet.host.train_unet import training_device
from ...adaptor_unet.training.latent_clip import STILL_FPS, TrainingClips
from ...adaptor_unet.training.options import Options
from ...adaptor_unet.training.prepare import clips_of_folder, clips_of_shards
from ...adaptor_unet.training.processes import processes
from ...adaptor_unet.training.record import Record, TensorBoard
from ...adaptor_unet.training.shards import write_shards
from ...adaptor_unet.training.terminal import Terminal
from ...adaptor_unet.training.watch import Watchers
from .motion import MotionTraining, Output

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

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

    def run(self, options: Options) -> bool:
        """Trains; False when it was stopped before its end.  Raises ValueError or TrainingError with a sentence."""
        output = self._output()
        base = BaseCheckpoint(self.base)
        with processes(cpu=training_device().type == "cpu") as place:
            clips = self._clips(options, base, place)
            if self.write_shards:
                if place.is_main_process:
                    index = write_shards(clips.train, self.write_shards, clips.empty_text)
                    logger.info("Wrote %d clips to %s.", len(clips.train), index.parent)
                return True
            return self._train(options, base, clips, output, place)

    def _train(
        self, options: Options, base: BaseCheckpoint, clips: TrainingClips, output: Output, place: "Accelerator"
    ) -> bool:
        used = asdict(options) | {"base_model": base.fingerprint}
        watchers = Watchers([])
        training = MotionTraining(
            base.model,
            self._adaptor(options, base),
            clips,
            options.training,
            output,
            place,
            watchers,
            lambda: base.encoders,
            used,
        )
        resumed = training.run.resume() if self.resume else False
        if self.resume and not resumed:
            logger.info("Nothing to resume in %s: a new run begins.", output.folder)
        finished = self._watched(training, watchers, options)
        if place.is_main_process:
            self._tell(finished, options, clips)
        return finished

    def _output(self) -> Output:
        path = self.output if self.output.suffix == ".safetensors" else self.output.with_suffix(".safetensors")
        folder = path.with_name(f"{path.stem}.run")
        if not self.resume and not self.write_shards and (path.exists() or folder.exists()):
            there = path if path.exists() else folder
            raise ValueError(f"{there} is there already: add --resume to go on with it, or choose another --output.")
        return Output(path, path.with_name(f"{path.stem}_base.safetensors"), folder)

    def _clips(self, options: Options, base: BaseCheckpoint, place: "Accelerator") -> TrainingClips:
        """On the first process first, which fills the cache."""
        if self.shards:
            return clips_of_shards(self.shards, options.training.validation_clips)
        with place.main_process_first():
            bar = tqdm(unit="clip", disable=not place.is_main_process, dynamic_ncols=True)
            return clips_of_folder(
                self.clips,
                options.clips,
                0 if self.write_shards else options.training.validation_clips,
                self.cache or self.output.parent / "cache",
                lambda: base.encoders,
                base.fingerprint,
                partial(show, bar),
            )

    def _adaptor(self, options: Options, base: BaseCheckpoint) -> VideoAdaptor:
        if options.adaptor.start:
            return load(Path(options.adaptor.start))
        return adaptor_for(base.model, **options.adaptor_settings)

    def _watched(self, training: MotionTraining, watchers: Watchers, options: Options) -> bool:
        """Trains with everybody watching who was asked for; other processes than the first only listen for Ctrl-C."""
        run, fps = training.run, training.clips.held_out[0].fps or STILL_FPS
        terminal = Terminal(options.training.steps, run.state.step, quiet=not run.accelerator.is_main_process)
        watchers.watchers.append(terminal)
        if run.accelerator.is_main_process:
            watchers.watchers.append(Record(training.output.folder, run.state.step, fps))
            if self.tensorboard:
                watchers.watchers.append(TensorBoard(training.output.folder, fps))
        try:
            return run.train()
        finally:
            terminal.close()

    def _tell(self, finished: bool, options: Options, clips: TrainingClips) -> None:
        logger.info("%s %s.", "Wrote" if finished else "Stopped; saved what there is in", self.output)
        clip = clips.held_out[0]
        told = {"name": self.output.name, "base": self.base.name, "fps": clip.fps or STILL_FPS, "caption": clip.caption}
        size = {"width": options.clips.width, "height": options.clips.height, "frames": options.clips.frames}
        logger.info(GRAPH.format(**told, **size))


def show(bar: tqdm, done: int, total: int, name: str) -> None:
    """Which clip is being encoded, so that a stall has a name."""
    bar.total, bar.n = total, done
    bar.set_description_str(f"encoding {name}", refresh=True)
