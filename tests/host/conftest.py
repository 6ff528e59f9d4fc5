"""Fixtures of the tests on the real host; the model itself is in tests/support/small_host.py."""

import pytest

import small_host  # isort: skip - first, because it puts the host on the path
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
