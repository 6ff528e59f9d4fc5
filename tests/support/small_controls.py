"""ControlNets of the host's own classes for the small UNet, hints that tell their number, and a record of both."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.t2i_adapter.adapter
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import build_model, with_all_weights
from torch import Tensor, nn

STEP = 1 / 256
# Two residual blocks a level, as the features of T2I-Adapter need them.
T2I_SHAPE = {"num_res_blocks": 2, "transformer_depth": [1] * 4, "transformer_depth_output": [1] * 6}


def numbered_hints(count: int, first: int = 0, size: int = 64) -> Tensor:
    """Grey pictures ``n h w 3``; the grey is the picture's number."""
    greys = (torch.arange(first, first + count) + 1) * STEP
    return greys[:, None, None, None].expand(count, size, size, 3).clone()


def numbers_of(hints: Tensor) -> list[int]:
    """``n c h w`` back to numbers."""
    return [round(float(hint.mean()) / STEP) - 1 for hint in hints]


def control_model(**shape: object) -> nn.Module:
    """The host's ControlNet for the small UNet, with random weights where training starts from zero."""
    settings = dict(build_model(**shape).model.model_config.unet_config)
    settings.pop("out_channels")
    network = with_all_weights(comfy.cldm.cldm.ControlNet(**settings, hint_channels=3))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            size = (3.0 if name.startswith("input_hint_block") else 0.5) / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
            parameter.requires_grad_(False)
    return network


def control_net() -> comfy.controlnet.ControlNet:
    return comfy.controlnet.ControlNet(control_model(), load_device=torch.device("cpu"))


def control_lora(**shape: object) -> comfy.controlnet.ControlLora:
    """Own weights for the hint and the ends, one low-rank change; all else comes from the UNet that is sampled."""
    own = ("input_hint_block", "zero_convs", "middle_block_out")
    weights = {name: value for name, value in control_model(**shape).state_dict().items() if name.startswith(own)}
    weights["time_embed.0.up"], weights["time_embed.0.down"] = torch.ones(256, 1) * 0.01, torch.ones(1, 64) * 0.01
    return comfy.controlnet.ControlLora(weights | {"lora_controlnet": torch.tensor([])})


def t2i_adapter() -> comfy.controlnet.T2IAdapter:
    torch.manual_seed(5)
    network = comfy.t2i_adapter.adapter.Adapter_light(channels=[64, 64], nums_rb=1, cin=192)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return comfy.controlnet.T2IAdapter(network, network.input_channels, 8, "nearest-exact")


CONTROLS = {"ControlNet": control_net, "ControlLora": control_lora, "T2IAdapter": t2i_adapter}


def model_for(kind: str) -> ModelPatcher:
    return build_model(**(T2I_SHAPE if kind == "T2IAdapter" else {}))


def record_hints(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Numbers of the hints that reach a network, call by call, in a list that grows."""
    seen: list[list[int]] = []
    plain, light = comfy.cldm.cldm.ControlNet.forward, comfy.t2i_adapter.adapter.Adapter_light.forward

    def control_forward(self: nn.Module, x: Tensor, hint: Tensor, *args: object, **kwargs: object) -> dict:
        seen.append(numbers_of(hint))
        return plain(self, x, hint, *args, **kwargs)

    def adapter_forward(self: nn.Module, x: Tensor) -> dict:
        seen.append(numbers_of(x))
        return light(self, x)

    monkeypatch.setattr(comfy.cldm.cldm.ControlNet, "forward", control_forward)
    monkeypatch.setattr(comfy.t2i_adapter.adapter.Adapter_light, "forward", adapter_forward)
    return seen
