"""One training run with a model of the host: its UNet copied, its sampler for the sample clips, its file formats."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...adaptor_unet.adaptor import VideoAdaptor
from ...adaptor_unet.checkpoint import save
from ...adaptor_unet.host.base_model import check_fit
from ...adaptor_unet.host.train_encode import HostEncoders, decode
from ...adaptor_unet.host.train_files import write, write_checkpoint
from ...adaptor_unet.host.train_sample import SampleSettings, sample_latents
from ...adaptor_unet.host.train_unet import TrainingUnet, training_dtype
from ...adaptor_unet.training.base_lora import BaseLora
from ...adaptor_unet.training.latent_clip import STILL_FPS, TrainingClips
from ...adaptor_unet.training.loop import TrainingRun
from ...adaptor_unet.training.settings import TrainingSettings
from ...adaptor_unet.training.trainables import Trainables
from ...adaptor_unet.training.watch import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Output:
    """Where a run writes: the adaptor, the LoRA or checkpoint of a base that is tuned along, and its own folder."""

    adaptor: Path
    base: Path
    folder: Path


class MotionTraining:
    """A run that is ready to start: ``run`` trains, the rest reads off what came of it.

    Must be made and used outside inference mode.  ``encoders`` gives autoencoder and text encoder when a sample clip
    or a checkpoint needs them.  Raises ValueError when adaptor, model or clips do not fit.
    """

    def __init__(
        self,
        model: ModelPatcher,
        adaptor: VideoAdaptor,
        clips: TrainingClips,
        settings: TrainingSettings,
        output: Output,
        accelerator: "Accelerator",
        watcher: Watcher,
        encoders: Callable[[], HostEncoders],
        used: dict[str, Any] | None = None,
    ) -> None:
        check_fit(model, adaptor.config)
        self.model, self.clips, self.settings, self.output = model, clips, settings, output
        self.encoders, self.used = encoders, used or {}
        self.dtype = training_dtype(settings.precision)
        weights = torch.float32 if settings.base_tuning == "full" else self.dtype
        self.denoiser = TrainingUnet(model, accelerator.device, weights, settings.checkpointing)
        self.adaptor = adaptor.to(accelerator.device, torch.float32)
        self.trainables = Trainables(self.adaptor, self.denoiser.unet, settings)
        self.run = TrainingRun(
            self.denoiser,
            self.trainables,
            clips,
            settings,
            output.folder,
            accelerator,
            watcher,
            self.publish,
            self.sample,
            self.dtype,
            {"base_model": self.used.get("base_model", "")},
        )

    def sample(self) -> Tensor:
        """f h w 3: a clip of the first held-out clip's caption and size, always from the same noise."""
        clip = self.clips.held_out[0]
        how = SampleSettings(
            tuple(clip.latents.shape),
            clip.fps or STILL_FPS,
            self.settings.sample_steps,
            self.settings.sample_cfg,
            seed=0,
        )
        latents = sample_latents(self.denoiser, self.adaptor, clip.text, self.clips.empty_text, how)
        return decode(self.model, self.encoders().vae, latents)

    def sample_averaged(self) -> Tensor:
        """f h w 3: the same with the averaged weights, outside the loop."""
        with self.run.averages.in_place(), self.run.autocast():
            return self.sample()

    def publish(self, step: int, final: bool) -> None:
        """Writes the adaptor, and what is tuned of the base; a whole checkpoint only at the end."""
        told = {"magicvideo.training": json.dumps(self.used | {"steps_done": step})}
        save(self.adaptor, self.output.adaptor, told | common_keys(self.settings, step), overwrite=True)
        if isinstance(self.trainables.base, BaseLora):
            write(self.output.base, self.trainables.base.for_loaders(), told | common_keys(self.settings, step))
        elif self.settings.base_tuning == "full" and final:
            encoders = self.encoders()
            write_checkpoint(self.output.base, self.model, self.denoiser.unet, encoders.clip, encoders.vae, told)


def common_keys(settings: TrainingSettings, step: int) -> dict[str, str]:
    """What LoRA managers read."""
    return {
        "ss_base_model_version": "sd_v1",
        "ss_steps": str(step),
        "ss_max_train_steps": str(settings.steps),
        "ss_learning_rate": str(settings.learning_rate),
        "ss_seed": str(settings.seed),
        "ss_mixed_precision": settings.precision,
    }
