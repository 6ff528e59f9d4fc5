"""A MotionLoRA as what a run trains: low-rank changes of a frozen motion module's attentions, and their file.

Axes: r rank, i input and o output channels.
"""

import json
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor, nn

from ..motion_module import MotionModule
from ..temporal_network import Network
from .optimisers import made_optimiser
from .settings import LoraLayout, TrainingSettings
from .trainables import TARGETS, AttentionLora

# Where nobody chooses.
RANK, RATE = 16, 1e-4
PLACE_END = ".transformer_blocks.0."


class ModuleLora(AttentionLora):
    """A LoRA on every query, key, value and output projection of a motion module's attentions."""

    def __init__(self, module: MotionModule, rank: int, seed: int = 0) -> None:
        super().__init__(module, [f"attention_blocks.{n}.{part}" for n in (0, 1) for part in TARGETS], rank, seed)

    def for_loaders(self, layout: LoraLayout) -> dict[str, Tensor]:
        """Tensors by the keys of a public MotionLoRA, ``W + up down``: down is r i, up o r, and there is no alpha."""
        return self.saved(partial(public_name, layout=layout))


def public_name(name: str, layout: LoraLayout) -> str:
    """The name in a MotionLoRA's file of one of a module's layers, without ``down`` and ``up``."""
    place, _, inner = name.partition(PLACE_END)
    attention, _, part = inner.removesuffix(".0").rpartition(".")  # to_out.0 is to_out there
    if layout == "animatediff":
        return f"{place}.temporal_transformer{PLACE_END}{attention}.processor.{part}_lora"
    number = int(attention.rpartition(".")[2])
    return f"unet.{place}{PLACE_END}attn{number + 1}.processor.{part}_lora"


class MotionLoraTrainables:
    """A LoRA on a motion module that stays as it is; ``Trained`` of a run."""

    shared_noise = 0.0

    def __init__(self, module: MotionModule, settings: TrainingSettings, rank: int) -> None:
        self.settings = settings
        self.network: Network = module.requires_grad_(False)
        self.lora = ModuleLora(module, rank, settings.seed).to(next(module.parameters()).device)
        self.lora.attach(module)
        self.identity = motion_lora_identity(module, rank)
        self.parameters: dict[str, nn.Parameter] = {
            f"lora.{name}": parameter for name, parameter in self.lora.named_parameters()
        }

    def rate(self, clips: int) -> float:
        """The highest learning rate, the same for any number of clips: so few numbers are not soon learnt by heart."""
        return self.settings.learning_rate or RATE

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        """An optimiser of the LoRA's weights at that highest rate."""
        group = {"params": [*self.parameters.values()], "lr": rate, "peak": rate}
        return made_optimiser(self.settings.optimiser, [group | {"weight_decay": self.settings.weight_decay}])


def motion_lora_identity(module: MotionModule, rank: int) -> dict[str, str]:
    """What a resumed run must share with the one before: the LoRA's rank and the module's settings, as JSON."""
    return {"motion_lora": json.dumps({"rank": rank, "module": asdict(module.config)})}
