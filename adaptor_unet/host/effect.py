"""An effect: whatever acts while a model samples.

A motion, a motion module, cross-frame attention and AdaIN are effects.  ``binding.py`` sets them on a clone of a model
and calls them; it knows none by name, nor do memory plan, windows and cache.  To add one: ``docs/add_an_effect.md``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete

from ..frame_layout import FrameLayout
from .call_part import CallPart, ModelOptions
from .frame_cache import CallCache
from .sampling_order import SamplingOrder

Self = TypeVar("Self", bound="Effect")


@dataclass(frozen=True)
class NoiseLevels:
    """A part of sampling, the noise levels sigma ``start`` down to ``end``, both included; all by default."""

    start: float = math.inf
    end: float = 0.0

    def __contains__(self, sigma: float) -> bool:
        return self.end <= sigma <= self.start


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Settings of one node that acts while a model samples; raises ValueError for settings that cannot work.

    ``node`` is the node's display name.  ``stage``: effects of a lower stage act before those of a higher one, in
    whichever order their nodes came.  ``strength``: how much of the effect; 0 leaves the image model exactly as it was.
    ``most_strength``: 1 where strength mixes the effect's result with the plain one, so that 0 to 1 is allowed;
    infinite where it scales a change, which may be of any size and sign.  ``frames_per_clip``: length of each clip in
    the batch, 0 for the whole batch as one clip.  ``start_percent``, ``end_percent``: the part of sampling in which it
    acts, 0 its start and 1 its end.  ``two_way``: whether a frame sees later ones, so that a clip must come whole.
    ``given_first``: what to know of it where a clip's first frame is given and others are made one by one.
    """

    node: ClassVar[str]
    stage: ClassVar[int]
    two_way: ClassVar[bool] = False
    given_first: ClassVar[str] = ""
    most_strength: ClassVar[float] = 1.0
    strength: float = 1.0
    frames_per_clip: int = 0
    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ValueError(f"strength of {self.node} must be a finite number, found {self.strength}.")
        if math.isfinite(self.most_strength) and not 0 <= self.strength <= self.most_strength:
            raise ValueError(f"strength of {self.node} must lie in 0 to {self.most_strength:g}, found {self.strength}.")
        if self.frames_per_clip < 0:
            raise ValueError(f"frames_per_clip of {self.node} must be 0 or more, found {self.frames_per_clip}.")
        start, end = self.start_percent, self.end_percent
        if not (0.0 <= start <= 1.0 and 0.0 <= end <= 1.0):
            raise ValueError(f"start_percent and end_percent of {self.node} must lie in 0 to 1, found {start}, {end}.")

    @classmethod
    def of(cls: type[Self], model: ModelPatcher, **settings: object) -> Self:
        """The effect for this model; ``settings`` are fields.  Raises ValueError if they do not fit it."""
        return cls(**settings)

    @classmethod
    def parts(cls: type[Self], acting: Sequence[tuple[Self, FrameLayout]], cache: CallCache) -> list[CallPart]:
        """What the effects of this class do in one call of the UNet.

        ``acting`` are those that act at its noise level, in the order of their nodes, each with the frames that the
        call holds as it counts clips.  ``cache`` gives what they have kept of the frames before, if the clip comes in
        chunks.
        """
        return []

    def levels(self, sampling: ModelSamplingDiscrete) -> NoiseLevels:
        """The noise levels at which it acts, as the model is sampled.

        To be asked while it is: a node that stands behind the effect's own may change how.
        """
        start, end = (float(sampling.percent_to_sigma(x)) for x in (self.start_percent, self.end_percent))
        return NoiseLevels(start if self.start_percent > 0 else math.inf, end)

    def acts_at(self, sigma: float | None, levels: NoiseLevels) -> bool:
        """Whether it acts at a noise level, None for unknown."""
        return self.strength != 0 and (sigma is None or sigma in levels)

    def attach(self, model: ModelPatcher) -> None:
        """Sets on the clone what it needs beside calls of the UNet: further models, functions behind guidance."""

    def on(self: Self, patcher: ModelPatcher) -> Self:
        """The effect with the tensors that belong to this copy of the model: the host makes one for each card."""
        return self

    def before_sampling(self, frames: int, model_options: ModelOptions) -> None:
        """Called once before the first step; logs what a person should know, raises ValueError for unusable batches."""

    @property
    def sampling_order(self) -> SamplingOrder | None:
        """The order of frames that it wants to be sampled in; None where it takes any.

        Its node then has an input ``order``, and ``together`` is the choice there that gives None.
        """
        return None

    def together(self: Self) -> Self:
        """The effect on a clip that is there already, whose frames are sampled in no order."""
        return self

    @property
    def shared_noise(self) -> float:
        """Share of the variance of each frame's noise that must be its clip's first frame's, 0 to 1."""
        return 0.0

    def activation_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """Bytes that a call of so many frames, ``height`` and ``width`` in latents, needs beside the UNet's own."""
        return 0

    def cache_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """Bytes of all that it keeps of the frames before, when a clip of so many frames comes in chunks."""
        return 0
