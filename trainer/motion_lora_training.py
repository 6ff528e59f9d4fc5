"""A training run of a MotionLoRA: put together as any other, around a frozen motion module in place of an adaptor."""

from dataclasses import replace

import torch
from comfy.model_patcher import ModelPatcher

from ..adaptor_unet.host.motion_module_effect import MotionModuleEffect
from ..adaptor_unet.host.noise_schedule import sampled_like
from ..adaptor_unet.host.teacher import NODE, check_frames, plain_copy
from ..adaptor_unet.host.training_unet import checkpointed
from ..adaptor_unet.training.motion_lora_trainables import MotionLoraTrainables
from ..adaptor_unet.training.settings import LoraLayout
from ..adaptor_unet.training.trainables import Trained
from ..adaptor_unet.whole_file import save_tensors
from .motion_training import MotionTraining, RunParts, common_keys


class MotionLoraTraining(MotionTraining):
    """Trains a LoRA of that ``rank`` on the motion module that the patcher holds, at the module's noise schedule.

    The file is ``output.adaptor`` of the ``parts``, with names in the ``layout`` that is asked for.  Raises what
    ``MotionTraining`` does.
    """

    def __init__(self, parts: RunParts, motion_module: ModelPatcher, *, rank: int, layout: LoraLayout) -> None:
        self.rank, self.layout, self.patcher = rank, layout, motion_module
        module = motion_module.model
        super().__init__(replace(parts, model=sampled_like(parts.model, module.config.kind, NODE)), module)

    def check_fit(self, model: ModelPatcher) -> None:
        check_module(model, self.patcher, len(self.clips.train[0].latents))

    def made_trainables(self, device: torch.device) -> Trained:
        """The LoRA, on a copy of the module in the precision of the UNet."""
        self.network = plain_copy(self.network, device, self.dtype)
        if self.settings.checkpointing:
            for transformer in self.network.transformers().values():
                transformer.forward = checkpointed(transformer.forward)
        return MotionLoraTrainables(self.network, self.settings, self.rank)

    def write(self, told: dict[str, str], step: int, final: bool) -> None:
        """Writes the LoRA alone."""
        common = common_keys(self.settings, step, "SD1.5", self.run.rate) | {"ss_network_dim": str(self.rank)}
        save_tensors(self.output.adaptor, self.trainables.lora.for_loaders(self.layout), told | common)


def check_module(model: ModelPatcher, motion_module: ModelPatcher, frames: int) -> None:
    """Raises ValueError when a motion module does not fit the model, or has no positions for so many frames."""
    MotionModuleEffect.of(model, motion_module=motion_module)
    check_frames(motion_module.model, frames)
