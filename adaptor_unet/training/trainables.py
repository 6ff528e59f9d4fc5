"""The tensors that a run may change, by name: the adaptor's, and what is tuned of the base, perhaps a LoRA on it.

What a run trains in place of an adaptor has the same members (``Trained``).

Axes: r rank, i input and o output channels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from ..adaptor import VideoAdaptor
from ..temporal_network import Network
from .optimisers import made_optimiser
from .run_identity import adaptor_identity, trained_config
from .settings import TrainingSettings

# The base's projections that a LoRA acts on.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


class Trained(Protocol):
    """What a run asks of whatever it trains.

    ``network`` acts in the UNet.  ``parameters``: all that the optimiser changes.  ``identity``: what a resumed run
    must have alike, by name.  ``shared_noise``: share of each frame's noise that is the first frame's.
    """

    network: Network
    parameters: dict[str, nn.Parameter]
    identity: dict[str, str]
    shared_noise: float

    def rate(self, clips: int) -> float:
        """The highest learning rate for so many clips."""

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        """An optimiser of all parameters for this ``rate``; its groups have highest rates of their own as ``peak``."""


class Trainables:
    """The adaptor, and what is tuned of the base: nothing, a LoRA on it, or all of it."""

    def __init__(self, adaptor: VideoAdaptor, unet: nn.Module, settings: TrainingSettings) -> None:
        self.adaptor, self.settings = adaptor, settings
        adaptor.config = trained_config(settings, adaptor.config)
        self.network: Network = adaptor
        self.identity = adaptor_identity(settings, adaptor.config)
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

    @property
    def shared_noise(self) -> float:
        """Share of each frame's noise that is the first frame's."""
        return self.adaptor.config.shared_noise

    def rate(self, clips: int) -> float:
        """The highest learning rate of attention and fps layers, for so many clips."""
        return self.settings.rate(clips)

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        """An optimiser of all parameters; ``rate`` is that of attention and fps layers.

        S and B have a rate of their own, and so has the base.  S and B are never decayed towards zero.
        """
        wholes: dict[str, list[Tensor]] = {"scale_shift": [], "layers": [], "base": []}
        for name, parameter in self.parameters.items():
            group = "scale_shift" if name.startswith(("adaptor.frame.", "adaptor.spatial.")) else "layers"
            wholes["base" if name.startswith("base.") else group].append(parameter)
        rates = {"scale_shift": rate * self.settings.adaptor_rate_factor, "layers": rate}
        rates["base"] = self.settings.base_rate
        groups = [
            {
                "params": wholes[group],
                "lr": rates[group],
                "peak": rates[group],
                "weight_decay": 0.0 if group == "scale_shift" else self.settings.weight_decay,
            }
            for group in wholes
            if wholes[group]
        ]
        return made_optimiser(self.settings.optimiser, groups)


def set_rates(optimiser: torch.optim.Optimizer, step: int, settings: TrainingSettings) -> None:
    """Sets the rates of a step, counted from 0: a linear warm-up to the peak, then half a cosine down to zero."""
    warm = min(settings.warm_up, settings.steps - 1)
    if step < warm:
        share = (step + 1) / (warm + 1)
    else:
        share = 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, settings.steps - warm))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


class MovingAverage:
    """Exponential moving average of the trained tensors: the weights that are saved and sampled with.

    While a run is young the decay is ``(1 + n) / (10 + n)`` at most, so that the start is soon forgotten.  The averages
    lie beside the tensors, or if ``offload`` in main memory.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float, offload: bool = False) -> None:
        self.parameters, self.decay, self.offload = parameters, decay, offload
        self.values = {name: self._copied(parameter) for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the tensors as they are after the step of that number, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        if self.offload:
            for name, parameter in self.parameters.items():
                self.values[name].lerp_(parameter.detach().cpu(), weight)
            return
        torch._foreach_lerp_(list(self.values.values()), [p.data for p in self.parameters.values()], weight)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """The averages stand in the modules for as long as the context lasts."""
        kept = {name: self._copied(parameter) for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.copy_(self.values[name])
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.copy_(kept[name])

    def _copied(self, parameter: nn.Parameter) -> Tensor:
        return parameter.detach().to("cpu" if self.offload else parameter.device, copy=True)


class LoraLayer(nn.Module):
    """Low-rank adaptation (Hu et al. 2021) of one layer: ``up down z``; ``up`` is zero at first, alpha the rank."""

    def __init__(self, inputs: int, outputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs, generator=generator) / rank)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, z: Tensor) -> Tensor:
        """... i -> ... o"""
        return nn.functional.linear(nn.functional.linear(z, self.down), self.up)


class AttentionLora(nn.Module):
    """A LoRA on a network: a ``LoraLayer`` for each linear layer whose name ends with one of ``endings``."""

    def __init__(self, network: nn.Module, endings: Sequence[str], rank: int, seed: int = 0) -> None:
        super().__init__()
        self.rank = rank
        generator = torch.Generator().manual_seed(seed)
        self.places = [
            name
            for name, module in network.named_modules()
            if name.endswith(tuple(endings)) and isinstance(module, nn.Linear)
        ]
        layers = [network.get_submodule(name) for name in self.places]
        self.layers = nn.ModuleList(LoraLayer(x.in_features, x.out_features, rank, generator) for x in layers)

    def attach(self, network: nn.Module) -> None:
        """Adds the LoRA, by forward hooks, to the layers of a network that nobody else uses."""
        for name, layer in zip(self.places, self.layers, strict=True):
            network.get_submodule(name).register_forward_hook(adding(layer))

    def saved(self, key_of: Callable[[str], str], prefix: str = "") -> dict[str, Tensor]:
        """Tensors for a file, by ``KEY.{prefix}down.weight``, r i, and ``KEY.{prefix}up.weight``, o r.

        ``key_of`` gives the key of a layer of that name.
        """
        tensors = {}
        for name, layer in zip(self.places, self.layers, strict=True):
            tensors[f"{key_of(name)}.{prefix}down.weight"] = layer.down.detach().cpu().contiguous()
            tensors[f"{key_of(name)}.{prefix}up.weight"] = layer.up.detach().cpu().contiguous()
        return tensors


class BaseLora(AttentionLora):
    """A LoRA on every query, key, value and output projection of the UNet's attentions.

    It is trained along with an adaptor, and saved for any stock LoRA loader.
    """

    def __init__(self, unet: nn.Module, rank: int, seed: int = 0) -> None:
        super().__init__(unet, [f".attn{n}.{part}" for n in (1, 2) for part in TARGETS], rank, seed)

    def for_loaders(self) -> dict[str, Tensor]:
        """Tensors by the keys that LoRA loaders know: ``lora_unet_<place>.lora_up.weight`` and so on."""
        alpha = {f"{loader_key(name)}.alpha": torch.tensor(float(self.rank)) for name in self.places}
        return self.saved(loader_key, "lora_") | alpha


def loader_key(name: str) -> str:
    """What LoRA loaders call a layer of the UNet."""
    return f"lora_unet_{name.replace('.', '_')}"


def adding(layer: LoraLayer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A forward hook that adds the layer's output."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out + layer(inputs[0]).to(out)

    return hook
