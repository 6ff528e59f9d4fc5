"""How a training run is put together: a model of the host, an adaptor, clips, settings, files and who watches."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adaptor_unet.checkpoint import FPS, save
from ..adaptor_unet.host.base_model import check_fit
from ..adaptor_unet.host.binding import BINDING_KEY
from ..adaptor_unet.host.sample_clips import SampleSettings, sample_latents
from ..adaptor_unet.host.teacher import ModuleTeacher
from ..adaptor_unet.host.training_files import HostEncoders, decode, sampling_keys, write_checkpoint
from ..adaptor_unet.host.training_unet import (
    TrainingUnet,
    check_fp8,
    make_room,
    training_device,
    training_dtype,
)
from ..adaptor_unet.motion_module import MotionModule
from ..adaptor_unet.temporal_network import Network
from ..adaptor_unet.training.data.cache_files import read_metadata
from ..adaptor_unet.training.data.latent_clip import TrainingClips
from ..adaptor_unet.training.loop import TrainingRun
from ..adaptor_unet.training.optimisers import check_optimiser
from ..adaptor_unet.training.run_state import last_step
from ..adaptor_unet.training.settings import MotionModuleSettings, TrainingSettings
from ..adaptor_unet.training.trainables import BaseLora, Trainables, Trained
from ..adaptor_unet.training.training_error import enough_memory
from ..adaptor_unet.training.watchers import DECODING, SAMPLE, Watcher, Watchers
from ..adaptor_unet.whole_file import save_tensors

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

# Metadata of what a run writes: its settings, and its name.
TRAINING_KEY, RUN_KEY = "magicvideo.training", "magicvideo.run"
# LoRA managers' names of the families.
BASE_VERSIONS = {"SD1.5": "sd_v1", "SD2": "sd_v2"}


@dataclass(frozen=True)
class Output:
    """Where a run writes: the adaptor, the LoRA or checkpoint of a base that is tuned along, and its own folder."""

    adaptor: Path
    base: Path
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """What a training run is put together of, whatever it trains.

    ``model``: the image model; it is copied and stays as it is.  ``watchers`` is called with the number of finished
    steps, once that is known, and gives those who are told of everything.  With ``resume`` the run goes on from the
    last state in its folder, if there is one.  ``encoders`` gives autoencoder and text encoder when a sample clip or a
    checkpoint needs them; without it there are no sample clips.  ``used`` is written into the files.  ``run_identity``:
    what a resumed run must share with the one before, beside its settings, its clips and the kind of what it trains.
    ``export(trainables, step, final)`` takes the place of writing the usual files.  ``memory_format`` is that of the
    copied UNet's weights.  ``teacher``: a motion module that says, on the copied UNet, what is wanted of the clips that
    it has sampled, by ``shares`` of them.
    """

    model: ModelPatcher
    clips: TrainingClips
    settings: TrainingSettings
    output: Output
    accelerator: "Accelerator"
    watchers: Callable[[int], Sequence[Watcher]]
    resume: bool = False
    encoders: Callable[[], HostEncoders] | None = None
    used: dict[str, Any] = field(default_factory=dict)
    run_identity: dict[str, Any] = field(default_factory=dict)
    export: Callable[[Trained, int, bool], object] | None = None
    memory_format: torch.memory_format = torch.preserve_format
    teacher: MotionModule | None = None
    shares: MotionModuleSettings = MotionModuleSettings()


class MotionTraining:
    """A training run that is ready to start: ``train`` trains, ``export`` writes files, ``sample`` renders a clip.

    ``network``, an adaptor, is itself trained.  Those who train another network are derived from this and say how it is
    checked, trained and written.

    Must be made and used outside inference mode.  Raises ValueError when adaptor, model, clips or saved state do not
    fit, and when a new run would write over a finished file; OutOfMemoryError when there is no room for the copy.
    """

    def __init__(self, parts: RunParts, network: Network) -> None:
        self.model, self.clips, self.settings, self.output = parts.model, parts.clips, parts.settings, parts.output
        self.network = network
        self.check_fit(self.model)
        self.encoders, self.used, self._export = parts.encoders, parts.used, parts.export
        self.usual_fps = self.clips.usual_fps  # read now, while all clips are there
        self.dtype = training_dtype(self.settings.precision)
        with enough_memory(
            "the model is copied to train with",
            "Close what else uses the memory, or take precision bf16 or base_precision fp8.",
        ):
            self.denoiser = self._copied_unet(parts)
            self.trainables = self.made_trainables(parts.accelerator.device)
            teacher = ModuleTeacher(self.denoiser, self.model, parts.teacher) if parts.teacher is not None else None
        self.run = TrainingRun(
            denoiser=self.denoiser,
            trainables=self.trainables,
            clips=self.clips,
            settings=self.settings,
            folder=self.output.folder,
            accelerator=parts.accelerator,
            watcher=Watcher(),
            export=self.export,
            sample=self.sample if self.encoders else None,
            dtype=self.dtype,
            run_identity=parts.run_identity,
            teacher=teacher,
            shares=parts.shares,
        )
        self._begin(parts.resume)
        self.watchers = tuple(parts.watchers(self.run.state.step))
        self.run.watcher = Watchers(self.watchers)

    def _copied_unet(self, parts: RunParts) -> TrainingUnet:
        """The run's own copy of the model's UNet, on the device of this process."""
        settings = self.settings
        copy = TrainingUnet(
            self.model,
            parts.accelerator.device,
            torch.float32 if settings.base_tuning == "full" else self.dtype,
            settings.checkpointing,
            fp8=settings.base_precision == "fp8",
            offload=settings.offload_activations,
            frames_at_once=settings.frames_at_once,
        )
        copy.unet.to(memory_format=parts.memory_format)
        return copy

    def _begin(self, resume: bool) -> None:
        """Goes on from a saved state if that is wanted.  Raises ValueError for a file that would be written over."""
        resumed = resume and self.run.resume()
        if self._export is None and resumed:
            refuse_others(self.output, self.settings, self.run.state.name)
        elif self._export is None:
            refuse_finished(self.output, self.settings)
        if resume and not resumed:
            logger.info("Nothing to resume in %s: a new run begins.", self.output.folder)
        if not self.settings.learning_rate and self.run.accelerator.is_main_process:
            logger.info("learning_rate 0 chooses %g here (clips: %d).", self.run.rate, self.clips.clip_count)

    def check_fit(self, model: ModelPatcher) -> None:
        """Raises ValueError when the network was made for another model."""
        check_fit(model, self.network.config)

    def made_trainables(self, device: torch.device) -> Trained:
        """What the optimiser changes, made from the network on that device."""
        self.network.to(device, torch.float32)
        return Trainables(self.network, self.denoiser.unet, self.settings)

    def train(self) -> bool:
        """Trains to the last step; False when a watcher stopped it before.  Either way all is saved."""
        try:
            return self.run.train()
        finally:
            self.run.watcher.close()

    def sample(self) -> Tensor:
        """f h w 3 in 0 to 1: a clip of the first held-out clip's caption and size, always from the same noise."""
        clip = self.clips.held_out[0]
        how = SampleSettings(
            tuple(clip.latents.shape),
            self.clips.sample_fps,
            self.settings.sample_steps,
            self.settings.sample_cfg,
            seed=0,
        )
        told = partial(self.run.watcher.phase, SAMPLE)
        latents = sample_latents(self.denoiser, self.network, clip.text, self.clips.empty_text, how, told)
        self.run.watcher.phase(DECODING, 0, 0)
        frames = decode(self.model, self.encoders().vae, latents)
        make_room()  # training needs what the autoencoder has taken
        return frames

    def sample_averaged(self) -> Tensor:
        """f h w 3 in 0 to 1: the clip that ``sample`` gives, by the averaged weights, outside the loop."""
        with self.run.averages.in_place(), self.run.autocast():
            return self.sample()

    def export(self, step: int, final: bool) -> None:
        """Writes what has been learnt in so many steps, or hands it to ``export`` of the parts."""
        if self._export is not None:
            self._export(self.trainables, step, final)
            return
        told = {TRAINING_KEY: json.dumps(self.used | {"steps_done": step}), RUN_KEY: self.run.state.name}
        self.write(told, step, final)

    def write(self, told: dict[str, str], step: int, final: bool) -> None:
        """Writes the adaptor, and what is tuned of the base; a whole checkpoint only at the end.

        ``told`` goes into the metadata of all of them.
        """
        rate = {FPS: f"{self.usual_fps:g}"}
        common = common_keys(self.settings, step, self.network.config.base, self.run.rate)
        save(self.network, self.output.adaptor, told | rate | common, overwrite=True)
        if isinstance(self.trainables.base, BaseLora):
            tensors = self.trainables.base.for_loaders()
            save_tensors(self.output.base, tensors, told | common)
        elif self.settings.base_tuning == "full" and final:
            encoders = self.encoders()
            write_checkpoint(self.output.base, self.model, self.denoiser.unet, encoders.clip, encoders.vae, told)


def check_base(model: ModelPatcher, settings: TrainingSettings) -> None:
    """Raises ValueError for a model that is to be tuned whole and could not be written in the end."""
    if settings.base_tuning == "full":
        sampling_keys(model)


def tell_of_effects(model: ModelPatcher) -> None:
    """Logs which of the pack's nodes act on the model: in training they do not."""
    binding = model.get_attachment(BINDING_KEY)
    for effect in binding.effects if binding else ():
        if effect.strength:
            logger.warning(
                "%s on the model has no part in this training, but for a noise schedule that it sets. To go on from an "
                "adaptor, connect that itself.",
                effect.node,
            )


def check_able(settings: TrainingSettings) -> None:
    """Raises ValueError, or ImportError for a library that is missing, when this machine cannot train so."""
    check_optimiser(settings.optimiser, training_device())
    if settings.base_precision == "fp8":
        check_fp8()


def is_finished(output: Output, settings: TrainingSettings, run_identity: dict[str, Any]) -> bool:
    """Whether a run has done all of its steps and its files are there; the model is not needed to tell.

    Raises StateError when the folder is that of a run with another identity.
    """
    step = last_step(output.folder, run_identity)
    if step is None or step < settings.steps:
        return False
    written = (read_metadata(output.adaptor) or {}).get("ss_steps") == str(step)
    return written and (settings.base_tuning == "frozen" or output.base.exists())


def refuse_finished(output: Output, settings: TrainingSettings) -> None:
    """Raises ValueError when one of the files that a run writes is there before it has begun."""
    for path in written_files(output, settings):
        if path.exists():
            raise ValueError(
                f"{path} is there already, and {output.folder} has no sound state to go on from. It stays as it is: "
                "move it away, or choose another output."
            )


def refuse_others(output: Output, settings: TrainingSettings, run: str) -> None:
    """Raises ValueError when one of the files that a run of this name is to write is there, and was not made by it."""
    for path in written_files(output, settings):
        if path.exists() and not is_of_run(path, run):
            raise ValueError(
                f"{path} was not made by the run in {output.folder}, which would write over it. It stays as it is: "
                "move it away, or choose another output."
            )


def is_of_run(path: Path, run: str) -> bool:
    """Whether the run of this name has written a file; earlier versions gave no names, but told their settings."""
    told = read_metadata(path) or {}
    theirs = told.get(RUN_KEY, "")
    return TRAINING_KEY in told and (theirs == run or "" in (theirs, run))


def written_files(output: Output, settings: TrainingSettings) -> tuple[Path, ...]:
    """The files that a run writes for its user: the adaptor, and what is tuned of the base."""
    return (output.adaptor,) if settings.base_tuning == "frozen" else (output.adaptor, output.base)


def common_keys(settings: TrainingSettings, step: int, family: str, rate: float) -> dict[str, str]:
    """The metadata that LoRA managers read, of a run after so many steps.

    Families that were made of SDXL have its name.  ``rate`` is the learning rate that is used.
    """
    return {
        "ss_base_model_version": BASE_VERSIONS.get(family, "sdxl_base_v1-0"),
        "ss_steps": str(step),
        "ss_max_train_steps": str(settings.steps),
        "ss_learning_rate": str(rate),
        "ss_seed": str(settings.seed),
        "ss_mixed_precision": settings.precision,
    }
