"""Noise that frames share: as the host's samplers take it, and as an adaptor was trained with it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
from torch import Tensor

from ..frame_noise import NoiseKind, check_noise, frame_noise, is_shared, shared_with_first
from .effect import Effect
from .unet_call import check_batch

logger = logging.getLogger(__name__)

# From this noise level on, latents are little more than noise: it has ten times the variance of a picture, and more.
MOSTLY_NOISE = 3.0
ADDED_BEFORE = (
    "%s needs noise that frames share, but noise was added before the sampler. Give the node that adds it Frame Noise "
    "with kind mixed and share %s."
)


@dataclass(frozen=True)
class FrameNoise:
    """What the host calls NOISE: a seed, and ``generate_noise``.  Settings as in ``frame_noise``; checks itself."""

    seed: int
    share: float = 0.9
    kind: NoiseKind = "progressive"
    frames_per_clip: int = 0

    def __post_init__(self) -> None:
        check_noise(*self.settings)

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        """n c h w, one for each frame of the latent.

        Made of the host's own noise for this seed; its ``batch_index``, if any, says which place each frame has in the
        whole batch.  With nothing shared it is the host's noise bit for bit.
        """
        samples, places = latent["samples"], latent.get("batch_index")
        check_batch(len(samples) if places is None else 0, self.frames_per_clip, "Frame Noise")
        if self.share == 0:
            return comfy.sample.prepare_noise(samples, self.seed, places)

        def own(wanted: Sequence[int]) -> Tensor:
            if places is not None:
                return comfy.sample.prepare_noise(samples, self.seed, list(wanted))
            # One frame more, because torch draws the last few numbers of a batch anew where its size is odd.
            shape = (max(wanted) + 2, *samples.shape[1:])
            return comfy.sample.prepare_noise(samples.new_empty(1).expand(shape), self.seed)[list(wanted)]

        return frame_noise(own, range(len(samples)) if places is None else places, *self.settings)

    @property
    def settings(self) -> tuple[float, NoiseKind, int]:
        """What ``check_noise`` and ``frame_noise`` take: share, kind and frames_per_clip."""
        return self.share, self.kind, self.frames_per_clip


def noise_as_trained(noise: Tensor, effects: Sequence[Effect], sigmas: Tensor, latents: Tensor) -> Tensor:
    """``n c h w`` of a sampler's noise, shared by the frames as the adaptor that shares most was trained.

    Noise that another node has added to the latents before is out of reach: what it was added to cannot be told from it
    any more.  The log says so where the frames, being mostly noise, are not alike as they should be.
    """
    most = max(effects, key=lambda effect: effect.shared_noise, default=None)
    if most is None or not most.shared_noise:
        return noise
    share, clip = most.shared_noise, most.frames_per_clip
    if sigmas[0] >= MOSTLY_NOISE and not noise.any() and latents.any() and not is_shared(latents, share, clip):
        logger.warning(ADDED_BEFORE, most.node, share)
    return shared_with_first(noise, share, clip)
