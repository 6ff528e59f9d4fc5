"""A training run of a given number of steps that can be stopped at any time and goes on where it was."""

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingSettings:
    """How a run is trained.  Raises ValueError for values that cannot work.

    ``rate``: the highest learning rate; it rises in the first ``warm_up`` steps.  ``fall``: the last share of the
    steps, in which the rate falls to nothing as a cosine. Before it nothing depends on ``steps``, so a run that is
    given more of them when it is resumed goes on as if it had had them from the start.  ``ema``: decay of the running
    mean of the weights, which is what the run is for.
    """

    steps: int
    rate: float
    ema: float
    warm_up: int = 200
    fall: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    save_minutes: float = 3.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rate <= 0 or not 0 <= self.ema < 1 or self.warm_up < 1 or not 0 < self.fall <= 1:
            raise ValueError(f"steps, rate, warm_up and fall must be positive, ema and fall shares, found {self}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        fallen = max(0.0, (step / self.steps - 1 + self.fall) / self.fall)
        rise = min(1.0, (step + 1) / self.warm_up)
        return self.rate * rise * (0.5 + 0.5 * math.cos(math.pi * min(1.0, fallen)))


class ResumableTraining:
    """Steps of AdamW on ``module``, with ``mean``, the running mean of its weights; ``path`` holds the state.

    ``seconds`` is the time spent so far, over all starts.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings, path: Path) -> None:
        self.module, self.settings, self.path = module, settings, path
        self.mean = copy.deepcopy(module).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=settings.rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.steps, self._seconds = 0, 0.0
        if path.is_file():
            self._load()
        self._resumed = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._seconds + time.monotonic() - self._resumed

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return self.steps / self.settings.steps

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of ``loss``; saves now and then.  Raises FloatingPointError for a loss of NaN."""
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.steps}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()
        self.steps += 1
        self._follow()
        if time.monotonic() - self._saved > 60 * self.settings.save_minutes:
            self.save()

    @torch.no_grad()
    def _follow(self) -> None:
        # A shorter memory at first, or the mean would drag the random start along.
        decay = min(self.settings.ema, (1 + self.steps) / (10 + self.steps))
        means, values = list(self.mean.parameters()), list(self.module.parameters())
        torch._foreach_lerp_(means, values, 1 - decay)

    def save(self) -> None:
        """Writes the state, under another name first, so that a stop in between leaves the old state whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        state = {"module": self.module.state_dict(), "mean": self.mean.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "steps": self.steps, "seconds": self.seconds}
        torch.save(state, unfinished)
        unfinished.replace(self.path)
        self._saved = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self._seconds = state["steps"], state["seconds"]


def half_precision(weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Weights as they are shipped: in fp16, contiguous, by name."""
    return {name: weight.detach().half().contiguous() for name, weight in weights}
