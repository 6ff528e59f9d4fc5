"""An adaptor whose S and B are computed: one pass of a reference clip through the model, at several noise levels.

In the pass AdaIN acts at each site, and S and B are what that took.  Measured on a model without it,
each site would undo again what the sites before it undo already.

Axes: f frames, n rows, c channels, h height, w width.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider, Sampler
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from einops import repeat
from torch import Tensor

from ..adaptor import AdaptorConfig, VideoAdaptor
from ..calibration import Change, calibrate, check_calibrated
from ..checkpoint import fp32_copy
from ..frame_layout import FrameLayout
from .adain_effect import Adain
from .base_model import check_fit, check_latents, config_for, unet_of
from .binding import BINDING_KEY, Binding, install, with_effect
from .call_part import GUIDANCE
from .hosted import hosted
from .step_state import IN_SAMPLING, step_caches

# Those that have S and B.
CALIBRATED_PARTS = ("frame", "spatial")
# Fewer noise levels do not tell what is alike at all of them.
LEVELS, FEWEST_LEVELS = 4, 2


class Recording:
    """S - 1 and B that AdaIN applied at every site, frame by frame, at one noise level after the other."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.levels: dict[str, list[Change]] = defaultdict(list)
        self.sums: dict[str, Tensor] = {}

    def add(self, site: str, layout: FrameLayout, change: Change) -> None:
        """Takes in S - 1 and B of one call, n c each; a frame that comes several times counts with their mean."""
        values = torch.stack([*change, torch.ones_like(change[0])]).cpu()
        sums = self.sums.setdefault(site, torch.zeros(3, self.frames, values.shape[-1]))
        sums.index_add_(1, torch.tensor(layout.positions * layout.batch), values)

    def end_level(self) -> None:
        """Says that a noise level is done; what comes from now on is of the next."""
        for site, (scale_delta, shift, count) in self.sums.items():
            self.levels[site].append((scale_delta / count, shift / count))
        self.sums.clear()


class ClipAtLevels(Sampler):
    """In the place of a sampler: shows the model a clip at each noise level, and gives the latents back as they are.

    All frames have the same noise, another at each level, so that frames differ in what they show alone.
    """

    def __init__(self, end_level: Callable[[], None]) -> None:
        self.end_level = end_level

    def sample(
        self,
        model_wrap: Callable,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """f c h w -> f c h w; the last sigma is the end, as in every sampler of the host.

        Raises ValueError for a node on the model that would keep a level's features for the next.
        """
        for name in step_caches(extra_args["model_options"], IN_SAMPLING):
            raise ValueError(
                f"{name} keeps what the model gave at one step for the next, so that Calibrate Adaptor would not see "
                "each level of noise. Connect the model without it."
            )
        sampling, generator = model_wrap.inner_model.model_sampling, torch.Generator().manual_seed(extra_args["seed"])
        for level, sigma in enumerate(sigmas[:-1]):
            one = torch.randn(latent_image[:1].shape, generator=generator)
            shared = repeat(one, "1 c h w -> f c h w", f=len(latent_image)).to(latent_image)
            x = sampling.noise_scaling(sigma, shared, latent_image)
            denoised = model_wrap(x, sigma.expand(len(x)), **extra_args)
            self.end_level()
            if callback is not None:
                callback(level, denoised, x, len(sigmas) - 1)
        return latent_image


def levels_between(model: ModelPatcher, steps: int) -> Tensor:
    """Sigmas in the middle of ``steps`` equal parts of sampling, falling, and 0."""
    sampling = model.get_model_object("model_sampling")
    return torch.tensor([*(sampling.percent_to_sigma((i + 0.5) / steps) for i in range(steps)), 0.0])


def calibrated_adaptor(
    model: ModelPatcher,
    latent: dict[str, Any],
    positive: list,
    steps: int = LEVELS,
    seed: int = 0,
    adaptor: ModelPatcher | None = None,
) -> ModelPatcher:
    """An adaptor with S and B that give each frame's channels the statistics of the clip's first, and nothing else.

    ``latent`` holds one clip, ``positive`` says what it shows; ``steps`` is the number of noise levels.  A given
    adaptor's S and B are replaced in a copy; the model and the adaptor stay as they are.  Raises ValueError when the
    model, the clip or the settings do not fit.
    """
    clip = latent["samples"]
    check_clip(clip, steps)
    unet_of(model)
    check_latents(model, clip.shape[1], "Calibrate Adaptor")
    config = (
        adaptor.model.config if adaptor is not None else config_for(model, frames=len(clip), parts=CALIBRATED_PARTS)
    )
    check_fit(model, config)
    check_calibrated(config, len(clip))
    made = untrained_adaptor(config) if adaptor is None else fp32_copy(adaptor.model)
    recording = Recording(len(clip))
    # What is recorded is told by calls of the UNet that run as they stand, not by what nodes make of their results.
    bound = shown_together(with_effect(model, Adain(at="features", sites=config.sites, told=recording.add)))
    for name in (TORCH_COMPILE_KWARGS, *GUIDANCE):
        bound.model_options.pop(name, None)
    guider = CFGGuider(bound)
    guider.inner_set_conds({"positive": positive})
    guider.sample(
        torch.zeros_like(clip),
        clip,
        ClipAtLevels(recording.end_level),
        levels_between(model, steps),
        callback=latent_preview.prepare_callback(bound, steps),
        disable_pbar=True,
        seed=seed,
    )
    calibrate(made, recording.levels)
    return hosted(made)


def shown_together(model: ModelPatcher) -> ModelPatcher:
    """A clone whose effects act on all frames of a clip together, because the clip is there already."""
    bound = model.clone()
    install(bound, Binding(tuple(effect.together() for effect in bound.get_attachment(BINDING_KEY).effects)))
    return bound


def check_clip(clip: Tensor, steps: int) -> None:
    """Raises ValueError for what holds no clip, or too few noise levels."""
    if clip.ndim != 4 or len(clip) < 2 or not clip.any():
        raise ValueError(
            f"Calibrate Adaptor needs the latents of a clip, two frames or more, from VAE Encode; found "
            f"{'an empty latent' if not clip.any() else 'a latent'} of shape {tuple(clip.shape)}."
        )
    if steps < FEWEST_LEVELS:
        raise ValueError(f"steps of Calibrate Adaptor must be {FEWEST_LEVELS} or more, found {steps}.")


def untrained_adaptor(config: AdaptorConfig) -> VideoAdaptor:
    """A frozen adaptor that changes nothing: S is 1, B is 0."""
    return VideoAdaptor(config).requires_grad_(False)
