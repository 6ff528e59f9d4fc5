"""All settings of a training run but those of its clips (``data_settings.py``); checked when made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Literal, get_args

from ..adaptor import FrameNoiseLevels

Weighting = Literal["none", "min_snr", "high_noise"]
BaseTuning = Literal["frozen", "lora", "full"]
Precision = Literal["auto", "fp32", "bf16"]
FEW_CLIPS = 4


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.  Raises ValueError for values that cannot work.

    Length: ``steps`` of ``batch`` clips each (all processes together), at most ``clips_at_once`` of them in memory.
    Rates: ``learning_rate`` for attention and fps layers, 0 chooses 1e-4, or 3e-5 for fewer than four clips, which
    overfit fast; S and B learn ``adaptor_rate_factor`` times faster, the base at ``base_rate``.  Linear warm-up over
    ``warm_up`` steps, then a cosine down to zero.  ``ema``: decay of the averaged weights, which are what is saved; 0
    saves the last weights.
    Loss: ``weighting`` over noise levels with its ``weighting_cap``; ``high_noise_share``: share of clips that are
    drawn from the noisier half of the timesteps alone, the others from all; ``caption_dropout``: share of clips with an
    empty caption, so that guidance works.
    Noise of a clip's frames, ``frame_noise_levels``: ``one_a_clip``, the same level for all; ``one_a_frame``, a level
    drawn for each; ``clean_context``, like that, but in ``clean_context_share`` of the clips the frames before a random
    place are nearly clean; ``finished_frames``, a level drawn for each frame, and each is given all earlier ones nearly
    clean, in twice the rows, so that every frame is trained as it is sampled frame after frame.  Nearly clean: a
    timestep drawn from those below ``context_timesteps``.
    Shares of steps: ``still_share`` of single frames with the adaptor; ``base_still_share`` of single frames without
    it, for a base that is tuned along and is to stay an image model.
    Base: ``frozen``, ``lora`` of rank ``base_rank``, or ``full``.
    Kept: the state every ``save_every`` steps, the last ``keep`` of them; a sample clip every ``sample_every`` and the
    validation loss every ``validate_every`` steps (0 for never), on ``validation_clips`` held-out clips.
    """

    steps: int = 500
    batch: int = 1
    clips_at_once: int = 1
    learning_rate: float = 0.0
    adaptor_rate_factor: float = 8.0
    base_rate: float = 1e-4
    weight_decay: float = 0.01
    warm_up: int = 20
    clip_norm: float = 1.0
    ema: float = 0.98
    weighting: Weighting = "high_noise"
    weighting_cap: float = 20.0
    high_noise_share: float = 0.0
    frame_noise_levels: FrameNoiseLevels = "one_a_clip"
    clean_context_share: float = 0.6
    context_timesteps: int = 60
    caption_dropout: float = 0.1
    still_share: float = 0.1
    base_still_share: float = 0.0
    base_tuning: BaseTuning = "frozen"
    base_rank: int = 16
    precision: Precision = "auto"
    checkpointing: bool = True
    save_every: int = 100
    keep: int = 2
    sample_every: int = 100
    sample_steps: int = 20
    sample_cfg: float = 7.0
    validate_every: int = 50
    validation_clips: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"steps": 1, "batch": 1, "clips_at_once": 1, "warm_up": 0, "base_rank": 1, "save_every": 1, "keep": 1}
        whole |= {
            "context_timesteps": 1,
            "sample_every": 0,
            "sample_steps": 1,
            "validate_every": 0,
            "validation_clips": 1,
            "seed": 0,
        }
        for name, least in whole.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, found {value!r}")
        shares = (
            "high_noise_share",
            "clean_context_share",
            "caption_dropout",
            "still_share",
            "base_still_share",
            "ema",
        )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not (type(value) in (int, float) and math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be a finite number, 0 or more, found {value!r}")
            if field.name in shares and value > 1:
                raise ValueError(f"{field.name} is a share and must lie in 0 to 1, found {value!r}")
            if field.type is bool and type(value) is not bool:
                raise ValueError(f"{field.name} must be true or false, found {value!r}")
        words = {"weighting": Weighting, "base_tuning": BaseTuning, "precision": Precision}
        words["frame_noise_levels"] = FrameNoiseLevels
        for name, kind in words.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, found {getattr(self, name)!r}")
        self._check_together()

    def _check_together(self) -> None:
        if self.weighting != "none" and self.weighting_cap < 1:
            raise ValueError(f"weighting_cap must be at least 1, found {self.weighting_cap}")
        if self.clip_norm == 0 or self.ema == 1 or self.adaptor_rate_factor == 0:
            raise ValueError(
                "clip_norm and adaptor_rate_factor must be above 0 and ema below 1, or nothing would learn"
            )
        if self.still_share + self.base_still_share > 1:
            raise ValueError("still_share and base_still_share together must not exceed 1")
        if self.base_still_share and self.base_tuning == "frozen":
            raise ValueError(
                "base_still_share trains the base alone, but base_tuning is frozen: choose lora or full, or 0"
            )

    def rate(self, clips: int) -> float:
        """Learning rate of attention and fps layers for a set of that many clips."""
        return self.learning_rate or (3e-5 if clips < FEW_CLIPS else 1e-4)


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for a setting that there is not, with the name that was probably meant."""
    known = sorted(known)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise ValueError(f"there is no setting {name!r}. {hint}")
