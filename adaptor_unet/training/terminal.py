"""A watcher for a terminal: a progress bar with loss and time left; Ctrl-C asks the run to save and stop."""

import signal
from types import FrameType

from torch import Tensor
from tqdm import tqdm

from .watch import Smoothed


class Terminal:
    """A second Ctrl-C stops at once, as usual.  ``quiet``: listens only, as all processes but the first do."""

    def __init__(self, steps: int, done: int, quiet: bool = False) -> None:
        self.bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, disable=quiet)
        self.mean, self.told, self.asked = Smoothed(), {}, False
        self.before = signal.signal(signal.SIGINT, self._interrupt)

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        if "loss" in values:
            self.told["loss"] = f"{self.mean.add(values['loss']):.4f}"
        if "val_high" in values:
            self.told |= {name: f"{values[name]:.4f}" for name in ("val_high", "val_low")}
            self.bar.write(
                f"step {done}: validation loss {values['val']:.5f} "
                f"(high noise {values['val_high']:.5f}, low noise {values['val_low']:.5f})"
            )
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
