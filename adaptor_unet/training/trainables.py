"""The tensors that a run may change, by name; everything else stays as it is."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..adaptor import VideoAdaptor
from .base_lora import BaseLora
from .settings import TrainingSettings


class Trainables:
    """The adaptor, and what is tuned of the base: nothing, a LoRA on it, or all of it."""

    def __init__(self, adaptor: VideoAdaptor, unet: nn.Module, settings: TrainingSettings) -> None:
        self.adaptor, self.settings = adaptor, settings
        self.base: nn.Module | None = None
        unet.requires_grad_(settings.base_tuning == "full")
        if settings.base_tuning == "full":
            self.base = unet
        elif settings.base_tuning == "lora":
            self.base = BaseLora(unet, settings.base_rank, settings.seed).to(next(unet.parameters()).device)
            self.base.attach(unet)
        adaptor.requires_grad_(True)
        self.parameters: dict[str, nn.Parameter] = {
            f"adaptor.{name}": parameter for name, parameter in adaptor.named_parameters()
        }
        if self.base is not None:
            self.parameters |= {f"base.{name}": parameter for name, parameter in self.base.named_parameters()}

    def optimiser(self, rate: float) -> torch.optim.AdamW:
        """AdamW with a rate of its own for S and B, and for the base; S and B are never decayed towards zero."""
        wholes: dict[str, list[Tensor]] = {"scale_shift": [], "layers": [], "base": []}
        for name, parameter in self.parameters.items():
            kind = "scale_shift" if name.startswith(("adaptor.frame.", "adaptor.spatial.")) else "layers"
            wholes["base" if name.startswith("base.") else kind].append(parameter)
        rates = {"scale_shift": rate * self.settings.adaptor_rate_factor, "layers": rate}
        rates["base"] = self.settings.base_rate
        groups = [
            {
                "params": wholes[kind],
                "lr": rates[kind],
                "peak": rates[kind],
                "weight_decay": 0.0 if kind == "scale_shift" else self.settings.weight_decay,
            }
            for kind in wholes
            if wholes[kind]
        ]
        return torch.optim.AdamW(groups)


def set_rates(optimiser: torch.optim.Optimizer, step: int, settings: TrainingSettings) -> None:
    """Rates of a step, counted from 0: a linear warm-up to the peak, then half a cosine down to zero."""
    warm = min(settings.warm_up, settings.steps - 1)
    if step < warm:
        share = (step + 1) / (warm + 1)
    else:
        share = 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, settings.steps - warm))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


class MovingAverage:
    """Exponential moving average of the trainable tensors; what is saved and sampled with.

    While a run is young the decay is ``(1 + n) / (10 + n)`` at most, so that the start is soon forgotten.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the step of that number, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), [p.data for p in self.parameters.values()], weight)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """The averages stand in the modules for as long as the context lasts."""
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.copy_(self.values[name])
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.copy_(kept[name])
