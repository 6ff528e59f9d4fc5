"""What a run tells while it goes on, and how it is asked to stop."""

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Watcher(Protocol):
    """Told of everything, on the first process only; ``stop`` is asked on every process before each step."""

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        """After a step: loss, gradient, rate, seconds; now and then the validation loss too."""

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        """A sample clip, ``f h w 3`` in 0 to 1."""

    def stop(self) -> bool:
        """Whether the run should save and stop."""


class Watchers:
    """Several watchers as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = watchers

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        for watcher in self.watchers:
            watcher.numbers(done, total, values)

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        for watcher in self.watchers:
            watcher.clip(done, name, frames)

    def stop(self) -> bool:
        return any(watcher.stop() for watcher in self.watchers)


class Smoothed:
    """Running mean of a noisy number, and the time that is left."""

    def __init__(self, decay: float = 0.98) -> None:
        self.decay, self.value, self.weight = decay, 0.0, 0.0

    def add(self, value: float) -> float:
        if math.isfinite(value):
            self.value = self.decay * self.value + (1 - self.decay) * value
            self.weight = self.decay * self.weight + 1 - self.decay
        return self.value / self.weight if self.weight else math.nan
