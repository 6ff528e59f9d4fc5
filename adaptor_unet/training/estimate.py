"""How long a run will take, foretold from a few timed passes of the image model.

Axes: n rows of the model, f frames of a clip, c h w of a latent.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..temporal_network import Network
from .data.latent_clip import STILL_FPS
from .objective import Denoiser
from .settings import TrainingSettings
from .validation import LEVELS

# What a step takes, in passes without gradients: its own, the way back through frozen weights, and with checkpointing
# the blocks once more.
STEP, STEP_COMPUTED_AGAIN = 2.3, 3.3
# Rows of the larger of the timed passes.
ROWS = 4
# Latent height and width of 256 x 256 pixels.
SMALL = 32
MINUTE = 60


@dataclass(frozen=True)
class TimedPass:
    """Seconds that a pass of the image model takes: ``itself`` for any, and ``row`` for each of its rows."""

    itself: float
    row: float

    def seconds(self, rows: int, area: float = 1.0) -> float:
        """Seconds of a pass of that many rows, of ``area`` times the pixels of the timed ones."""
        return self.itself + self.row * rows * area


def timed(one_pass: Callable[[int], object]) -> TimedPass:
    """Times ``one_pass(rows)`` for one row and for a few, once the first has warmed up."""
    one_pass(1)
    spent = []
    for rows in (1, ROWS):
        began = time.perf_counter()
        one_pass(rows)
        spent.append(time.perf_counter() - began)
    row = max(0.0, (spent[1] - spent[0]) / (ROWS - 1))
    return TimedPass(max(0.0, spent[0] - row), row)


@torch.no_grad()
def pass_time(denoiser: Denoiser, network: Network, latents: Tensor, text: Tensor) -> TimedPass:
    """Times passes over frames as large as those of ``latents``, f c h w, with the caption ``text``, n d."""
    device = denoiser.sigmas.device
    frame, words = latents[:1].to(device).float(), text[None].to(device).float()

    def one_pass(rows: int) -> None:
        x, sigma = frame.repeat(rows, 1, 1, 1), denoiser.sigmas[-1:].repeat(rows)
        denoiser.predict(x, sigma, words, (STILL_FPS,), network).sum().item()  # a number, which has to be waited for

    return timed(one_pass)


@dataclass(frozen=True)
class Work:
    """What is left of a run: ``steps`` steps, and so many ``validations`` and ``samples`` (sample clips).

    A step has ``clips`` clips on one process, a clip has ``frames`` frames, and a validation looks at ``held_out``
    clips.  ``predicted``: share of the clips that are learnt towards a teacher's prediction, at one noise level.
    """

    settings: TrainingSettings
    frames: int
    held_out: int
    steps: int
    clips: int
    validations: int
    samples: int
    predicted: float = 0.0

    def training(self, took: TimedPass, area: float = 1.0) -> float:
        """Seconds of all steps, for latents of ``area`` times the size of the timed ones."""
        rows = self.frames * (2 if self.settings.frame_noise_levels == "finished_frames" else 1)
        factor = STEP_COMPUTED_AGAIN if self.settings.checkpointing else STEP
        clip = factor * took.seconds(rows, area)
        taught = (factor + 1) * took.seconds(self.frames, area)  # the teacher's pass is about as long as another
        return self.steps * self.clips * ((1 - self.predicted) * clip + self.predicted * taught)

    def validation(self, took: TimedPass, area: float = 1.0) -> float:
        """Seconds of all validations; each frame is looked at alone, and given finished ones."""
        each = took.seconds(self.frames, area) + took.seconds(2 * self.frames, area)
        return self.validations * self.held_out * LEVELS * each

    def sampling(self, took: TimedPass, area: float = 1.0) -> float:
        """Seconds of all sample clips, whose frames are made together or one after the other, as they are trained."""
        steps = self.settings.sample_steps
        if self.settings.frame_noise_levels == "one_a_clip":
            return self.samples * steps * took.seconds(2 * self.frames, area)
        return self.samples * self.frames * (steps + 1) * took.seconds(2, area)

    def told(self, took: TimedPass, size: tuple[int, int]) -> str:
        """One sentence: how long it will take, and what would make it shorter.  ``size``: h and w of the latents."""
        parts = {"validate_every": self.validation(took), "sample_every": self.sampling(took)}
        words = [f"{about(self.training(took) + sum(parts.values()))} for {self.steps} steps".capitalize()]
        area = SMALL * SMALL / (size[0] * size[1])
        if area < 1:
            smaller = sum(part(took, area) for part in (self.training, self.validation, self.sampling))
            words.append(f"at 256x256 {about(smaller)}")
        words += [f"{name} 0 saves {about(part)}" for name, part in parts.items() if part > MINUTE]
        return f"{'; '.join(words)}."


def about(seconds: float) -> str:
    """A time in words, as roughly as it is known."""
    if seconds < MINUTE:
        return "less than a minute"
    minutes = seconds / MINUTE
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} hours"
