"""The image model with a motion module as a teacher: it samples clips, and says what it takes noisy ones for.

Axes: n rows of the UNet, f frames of a clip, c h w of a latent; n d also tokens and channels of a text.
"""

from collections.abc import Callable
from dataclasses import dataclass

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from ..motion_module import MotionModule
from ..motion_module import with_tensors as motion_module_of
from .binding import Binding, install, with_effect
from .graph_watch import raise_if_stopped
from .motion_module_effect import MotionModuleEffect
from .noise_schedule import schedule_for
from .training_unet import TrainingUnet

NODE = "Train MagicVideo Adaptor"
# Of the host's, for the teacher's clips.
SAMPLER, SCHEDULER = "dpmpp_2m", "karras"
# Frames of the clips that public motion modules were trained with.
TRAINED_FRAMES = 16


@dataclass(frozen=True)
class HostTeacher:
    """A teacher that samples as in a graph: *Apply Motion Module* as it is by default, and the host's own sampler.

    ``model`` has the module on it; ``shape`` is that of a clip, f c h w.
    """

    model: ModelPatcher
    shape: tuple[int, int, int, int]
    steps: int
    cfg: float

    @classmethod
    def of(
        cls, model: ModelPatcher, motion_module: ModelPatcher, shape: tuple[int, int, int, int], steps: int, cfg: float
    ) -> "HostTeacher":
        """The teacher on a clone of the model without what the pack's nodes have put on it.

        Raises ValueError when the two do not fit.
        """
        effect, alone = MotionModuleEffect.of(model, motion_module=motion_module), model.clone()
        install(alone, Binding())
        return cls(with_effect(alone, effect), shape, steps, cfg)

    @torch.no_grad()
    def clip(self, text: Tensor, empty_text: Tensor, seed: int, progress: Callable[[int, int], None]) -> Tensor:
        """f c h w as the UNet works on them, for texts n d; ``progress`` is told of the steps.

        Raises the host's own error when its stop button was pressed.
        """
        start = torch.zeros(self.shape)
        positive, negative = ([[rearrange(one, "n d -> 1 n d"), {}]] for one in (text, empty_text))

        def told(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
            raise_if_stopped()
            progress(step + 1, steps)

        samples = comfy.sample.sample(
            self.model,
            comfy.sample.prepare_noise(start, seed),
            self.steps,
            self.cfg,
            SAMPLER,
            SCHEDULER,
            positive,
            negative,
            start,
            callback=told,
            disable_pbar=True,
            seed=seed,
        )
        return self.model.model.process_latent_in(samples).float().cpu()


def check_frames(module: MotionModule, frames: int) -> None:
    """Raises ValueError for clips of which a module does not see all frames at once, or which have no motion."""
    config = module.config
    if not 1 < frames <= config.positions:
        raise ValueError(
            f"frames is {frames}, but this motion module ({config.kind}) has positions for {config.positions}, and "
            f"needs two or more. Choose 2 to {config.positions} frames; {TRAINED_FRAMES} is what such modules were "
            "trained with."
        )


def plain_copy(module: MotionModule, device: torch.device, dtype: torch.dtype) -> MotionModule:
    """A frozen copy with plain layers, for a training."""
    tensors = {name: tensor.to(device, dtype, copy=True) for name, tensor in module.state_dict().items()}
    return motion_module_of(module.config, tensors)


class ModuleTeacher:
    """The teacher of a run (``training.objective.Teacher``): the learner's own UNet, frozen, with a motion module.

    It works at the module's own noise schedule, where the learner has the model's: both are asked for the same sigma,
    each scales its input and counts its timesteps by itself, and what both say is compared as clean latents, whatever
    the model predicts.
    """

    def __init__(self, denoiser: TrainingUnet, model: ModelPatcher, module: MotionModule) -> None:
        schedule = schedule_for(model, "auto", module.config.kind, NODE)
        self.denoiser = denoiser if schedule is None else denoiser.sampled_as(schedule)
        self.module = plain_copy(module, denoiser.sigmas.device, denoiser.dtype)

    @torch.no_grad()
    def clean(self, x: Tensor, sigma: Tensor, text: Tensor, fps: tuple[float, ...]) -> Tensor:
        """n c h w -> n c h w: what it takes the clean clips for"""
        out = self.denoiser.predict(x, sigma, text, fps, self.module)
        return self.denoiser.denoised(out, x, sigma)
