"""Fixtures of the tests on the real host; the model itself is in tests/support/small_host.py."""

import os

import pytest

if "COMFYUI_PATH" not in os.environ:
    pytest.exit("COMFYUI_PATH must name a ComfyUI; bash bin/test sets it.", returncode=2)

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
