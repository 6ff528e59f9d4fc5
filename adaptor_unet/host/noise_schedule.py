"""The noise schedule that a motion module was trained with, in place of the image model's own.

ComfyUI has no node for it.  Its name for AnimateDiff's betas, which grow evenly, is ``sqrt_linear``; what it calls
``linear`` is Stable Diffusion's own, whose square roots do.
"""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal, get_args

import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete
from comfy_extras.nodes_model_advanced import ModelSamplingDiscreteDistilled
from torch import Tensor

from ..motion_module import ModuleKind

Schedule = Literal["auto", "the model's own", "AnimateDiff", "AnimateLCM"]
SAMPLING_OBJECT = "model_sampling"  # the host's name for what knows of a model's noise levels
BETAS = {"beta_schedule": "sqrt_linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
TABLES = ("sigmas", "log_sigmas")


class KeptTables:
    """To be mixed into a model sampling of the host: its tables are plain attributes, not buffers.

    From ComfyUI 0.16 to 0.45, loading with dynamic memory writes back the buffers of whatever object stood at this
    place before, by their names (``docs/motion-modules.md``), so that a model would be sampled with another's noise
    levels.  What is no buffer is neither noted nor written, nor taken to a card: for calls there it has a copy there.
    """

    sigmas: Tensor
    log_sigmas: Tensor
    elsewhere: dict[torch.device, "KeptTables"]  # copies, by the device of their tables

    def set_sigmas(self, sigmas: Tensor) -> None:
        """Sets the tables, from the least noise level on."""
        self.sigmas, self.log_sigmas, self.elsewhere = sigmas.float(), sigmas.log().float(), {}

    def timestep(self, sigma: Tensor) -> Tensor:
        """The timestep of each noise level, where these are: else a card would wait at each call of the UNet."""
        return super(KeptTables, self.at(sigma.device)).timestep(sigma)

    def sigma(self, timestep: Tensor) -> Tensor:
        """The noise level of each timestep, where these are."""
        return super(KeptTables, self.at(timestep.device)).sigma(timestep)

    def at(self, device: torch.device) -> "KeptTables":
        """This object, or a copy of it whose tables are on that device."""
        if device == self.sigmas.device:
            return self
        if device not in self.elsewhere:
            copied = copy.copy(self)
            with torch.inference_mode(False):  # it outlasts the call
                copied.sigmas, copied.log_sigmas = self.sigmas.to(device), self.log_sigmas.to(device)
            copied.elsewhere = {}
            self.elsewhere[device] = copied
        return self.elsewhere[device]

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Registers a buffer as torch does, unless it is one of the tables, which are to be no buffers."""
        if name not in TABLES:
            super().register_buffer(name, tensor, persistent)

    def _apply(self, function: Callable[[Tensor], Tensor], *args: object, **kwargs: object) -> "KeptTables":
        """Moves the tables with all else that ``to`` moves."""
        super()._apply(function, *args, **kwargs)
        self.sigmas, self.log_sigmas, self.elsewhere = function(self.sigmas), function(self.log_sigmas), {}
        return self


class HundredSteps(ModelSamplingDiscreteDistilled):
    """Every tenth of a thousand timesteps, with which AnimateLCM was distilled."""

    original_timesteps = 100


def sampled_like(model: ModelPatcher, kind: ModuleKind, node: str) -> ModelPatcher:
    """A clone of the model that is sampled as a motion module of this kind was trained."""
    schedule, clone = schedule_for(model, "auto", kind, node), model.clone()
    if schedule is not None:
        clone.add_object_patch(SAMPLING_OBJECT, schedule)
    return clone


def schedule_for(model: ModelPatcher, choice: Schedule, kind: ModuleKind, node: str) -> ModelSamplingDiscrete | None:
    """The model sampling of a motion module of this kind; None where the model's own stays.

    What the model predicts stays as it is.  Raises ValueError for models that are not sampled by timesteps.
    """
    if choice not in get_args(Schedule):
        raise ValueError(f"noise_schedule of {node} must be one of {', '.join(get_args(Schedule))}; found {choice!r}.")
    if choice == "the model's own":
        return None
    current = model.get_model_object(SAMPLING_OBJECT)
    if not isinstance(current, ModelSamplingDiscrete):
        raise ValueError(
            f"{node} sets the noise schedule of a model with timesteps, but this model is sampled by "
            f"{type(current).__name__}. Take out the node that sets that, or set noise_schedule to the model's own."
        )
    lcm = choice == "AnimateLCM" or (choice == "auto" and kind == "AnimateLCM")
    before = getattr(current, "before", type(current))  # of a motion module's own, the class that it was made of
    mixed = [one for one in (KeptTables, *([HundredSteps] if lcm else [])) if not issubclass(before, one)]
    made = type("MotionSchedule", (*mixed, before), {"before": before})
    return made(SimpleNamespace(sampling_settings=BETAS), zsnr=current.zsnr)
