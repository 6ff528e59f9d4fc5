"""Fixtures of the tests on the real host; the model itself is in tests/support/small_host.py."""

import os

import pytest

if "COMFYUI_PATH" not in os.environ:
    pytest.exit("COMFYUI_PATH must name a ComfyUI; bash bin/test sets it.", returncode=2)

import comfy.model_management
import comfy.ops
import small_host
from comfy.model_patcher import ModelPatcher

from magicvideo.adaptor_unet.host.hosted import fresh_adaptor


@pytest.fixture
def model() -> ModelPatcher:
    """A small random model of the SD1.5 kind."""
    return small_host.build_model()


@pytest.fixture
def adaptor(model: ModelPatcher) -> ModelPatcher:
    """An adaptor for it, as training might leave one."""
    return small_host.trained(fresh_adaptor(model))


@pytest.fixture
def sample() -> small_host.Sampler:
    return small_host.sample


@pytest.fixture(params=["whole layers", "lazy layers"])
def either_layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's layers as it makes them on a processor, and as newer ones do on an NVIDIA card by default.

    There a Linear has no weight before a state dict is loaded.
    """
    if request.param == "lazy layers":
        memory = pytest.importorskip("comfy.memory_management", reason="this host has no lazy layers")
        monkeypatch.setattr(memory, "aimdo_enabled", True)
        monkeypatch.setattr(comfy.model_management, "WINDOWS", True)  # 0.18 has them there alone
        assert comfy.ops.disable_weight_init.Linear(2, 2).weight is None
