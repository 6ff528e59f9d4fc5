"""A watcher for a terminal: a progress bar with loss and time left; Ctrl-C asks the run to save and stop."""

import signal
from types import FrameType

from torch import Tensor

from .live_bar import LiveBar
from .progress_pictures import Smoothed
from .watchers import TRAINING, Watcher

VALIDATION = {"val": "frames together", "val_given": "given finished frames"}


class Terminal(Watcher):
    """A second Ctrl-C stops at once, as usual.  ``quiet``: listens only, as all processes but the first do."""

    def __init__(self, steps: int, done: int, quiet: bool = False) -> None:
        self.bar = LiveBar(total=steps, initial=done, unit="step", disable=quiet)
        self.mean, self.told, self.asked = Smoothed(), {}, False
        self.before = signal.signal(signal.SIGINT, self._interrupt)

    def phase(self, doing: str, done: int, total: int) -> None:
        # The bar itself counts the steps of training.
        self.bar.phase(doing, *(() if doing == TRAINING else (done, total)))

    def note(self, sentence: str) -> None:
        self.bar.write(sentence)

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        if "loss" in values:
            self.told["loss"] = f"{self.mean.add(values['loss']):.4f}"
        if "val_high" in values:
            self.told |= {name: f"{values[name]:.4f}" for name in ("val_high", "val_low")}
            told = [
                f"{words} {values[name]:.5f} (high noise {values[f'{name}_high']:.5f}, low {values[f'{name}_low']:.5f})"
                for name, words in VALIDATION.items()
                if name in values
            ]
            self.bar.write(f"step {done}: validation loss, {'; '.join(told)}")
        self.bar.set_postfix(self.told, refresh=False)
        self.bar.update(done - self.bar.n)

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        self.bar.write(f"step {done}: sample clip {name}")

    def stop(self) -> bool:
        return self.asked

    def close(self) -> None:
        signal.signal(signal.SIGINT, self.before)
        self.bar.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.bar.disable:
            self.bar.write("Stopping after this step; state and adaptor will be saved. Once more to stop at once.")
        signal.signal(signal.SIGINT, self.before)
