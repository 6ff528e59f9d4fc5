"""Nodes that act while a model samples, as functions of model, adaptor and strength, and memory that is planned."""

from collections.abc import Callable

import comfy.model_management
import pytest
import small_host
import torch
from comfy.model_patcher import ModelPatcher

from magicvideo.adaptor_unet.host.adain_effect import Adain
from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.cross_frame_effect import CrossFrameAttention
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind


def sharp_model(**changes: object) -> ModelPatcher:
    """The small model with self-attention that tells tokens apart and weighs much, as trained ones do."""
    model = small_host.build_model(**changes)
    with torch.no_grad():
        for name, parameter in model.model.diffusion_model.named_parameters():
            if ".attn1." in name:
                parameter.mul_(4.0)
    return model


def far_looking(model: ModelPatcher) -> ModelPatcher:
    """An adaptor for it that looks back far and acts strongly, so that a past that is not there would show."""
    return small_host.trained(fresh_adaptor(model, frames=6), size=1.0)


def with_cross_frame_attention(model: ModelPatcher, **settings: object) -> ModelPatcher:
    return with_effect(model, CrossFrameAttention.of(model, **settings))


def with_adain(model: ModelPatcher, **settings: object) -> ModelPatcher:
    return with_effect(model, Adain.of(model, **settings))


def moved(model: ModelPatcher, adaptor: ModelPatcher, strength: float = 1.0, clip: int = 0) -> ModelPatcher:
    return bind(model, adaptor, strength=strength, frames_per_clip=clip)


def cross_frame(model: ModelPatcher, adaptor: object = None, strength: float = 1.0, clip: int = 0) -> ModelPatcher:
    return with_cross_frame_attention(model, where="all", strength=strength, frames_per_clip=clip)


def last_frames(model: ModelPatcher, adaptor: object = None, strength: float = 1.0, clip: int = 0) -> ModelPatcher:
    return with_cross_frame_attention(model, look_back="last", last_frames=3, strength=strength, frames_per_clip=clip)


def features(model: ModelPatcher, adaptor: object = None, strength: float = 1.0, clip: int = 0) -> ModelPatcher:
    return with_adain(model, at="features", strength=strength, frames_per_clip=clip)


def latents(model: ModelPatcher, adaptor: object = None, strength: float = 1.0, clip: int = 0) -> ModelPatcher:
    return with_adain(model, at="latent", strength=strength, frames_per_clip=clip)


def untrained(model: ModelPatcher, adaptor: object = None, strength: float = 1.0, clip: int = 0) -> ModelPatcher:
    """All that needs nothing trained, together."""
    return latents(features(last_frames(model, None, strength, clip), None, strength, clip), None, strength, clip)


Way = Callable[..., ModelPatcher]
UNTRAINED: list[Way] = [cross_frame, last_frames, features, latents]


def planned_bytes(monkeypatch: pytest.MonkeyPatch, *runs: Callable[[], object]) -> list[float]:
    """The memory that the host plans for each of the runs, which sample once each."""
    planned, load = [], comfy.model_management.load_models_gpu

    def record(models: list, memory_required: float = 0, **rest: object) -> None:
        planned.append(memory_required)
        load(models, memory_required=memory_required, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(comfy.model_management, "load_models_gpu", record)
        for run in runs:
            run()
    return planned
