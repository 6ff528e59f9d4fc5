"""A LoRA on the base's attention, trained along with an adaptor and saved for any stock LoRA loader.

Low-rank adaptation, Hu et al. 2021.  Axes: r rank, i input and o output channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


class LowRank(nn.Module):
    """``up down z``, with ``up`` at zero, so that it starts as nothing.  The usual alpha equals the rank."""

    def __init__(self, inputs: int, outputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs, generator=generator) / rank)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, z: Tensor) -> Tensor:
        """... i -> ... o"""
        return nn.functional.linear(nn.functional.linear(z, self.down), self.up)


class BaseLora(nn.Module):
    """One ``LowRank`` for every query, key, value and output projection of the UNet's attentions."""

    def __init__(self, unet: nn.Module, rank: int, seed: int = 0) -> None:
        super().__init__()
        self.rank = rank
        generator = torch.Generator().manual_seed(seed)
        self.places = [
            name
            for name, module in unet.named_modules()
            if name.endswith(tuple(f".attn{n}.{part}" for n in (1, 2) for part in TARGETS))
            and isinstance(module, nn.Linear)
        ]
        layers = [unet.get_submodule(name) for name in self.places]
        self.layers = nn.ModuleList(LowRank(x.in_features, x.out_features, rank, generator) for x in layers)

    def attach(self, unet: nn.Module) -> None:
        """Adds itself to the layers of a UNet that nobody else uses."""
        for name, layer in zip(self.places, self.layers, strict=True):
            unet.get_submodule(name).register_forward_hook(adding(layer))

    def for_loaders(self) -> dict[str, Tensor]:
        """Tensors by the keys that LoRA loaders know: ``lora_unet_<place>.lora_up.weight`` and so on."""
        tensors = {}
        for name, layer in zip(self.places, self.layers, strict=True):
            key = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = layer.down.detach().cpu().contiguous()
            tensors[f"{key}.lora_up.weight"] = layer.up.detach().cpu().contiguous()
            tensors[f"{key}.alpha"] = torch.tensor(float(self.rank))
        return tensors


def adding(layer: LowRank) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A forward hook that adds the layer's output."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out + layer(inputs[0]).to(out)

    return hook
