"""What a terminal shows of a training: a progress bar with loss and time left.  Ctrl-C asks it to save and stop."""

import signal
import sys
import threading
from types import FrameType
from typing import TextIO

from torch import Tensor
from tqdm import tqdm

from .progress_pictures import Smoothed
from .watchers import TRAINING, Watcher, clip_phase

# How often a bar's clock is renewed: in a terminal, and in a file, where each time adds a line.
SECONDS, SECONDS_IN_A_FILE = 1.0, 3.0
# The validation losses, and what is said of each.
VALIDATION_WORDS = {"val": "frames together", "val_given": "given finished frames"}


class Lines:
    """Stands for a terminal where the output is none: writes each state of a bar as a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.encoding = file, getattr(file, "encoding", None)

    def write(self, text: str) -> None:
        line = text.replace("\r", "").strip()
        if line:
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        self.file.flush()


class LiveBar(tqdm):
    """A progress bar on the standard error stream whose clock is renewed also while no step is finished.

    Arguments are those of tqdm, all but ``file``, ``mininterval`` and ``dynamic_ncols``.
    """

    def __init__(self, **how: object) -> None:
        self.ended = threading.Event()
        terminal = sys.stderr.isatty()
        self.seconds = SECONDS if terminal else SECONDS_IN_A_FILE
        file = sys.stderr if terminal else Lines(sys.stderr)
        super().__init__(file=file, mininterval=0.1 if terminal else self.seconds, dynamic_ncols=terminal, **how)
        if not self.disable:
            threading.Thread(target=self._renewed, daemon=True).start()

    def phase(self, words: str, done: int = 0, total: int = 0) -> None:
        """Shows what is being done now, at once where it is something new; how much of it, when the clock is renewed.

        ``total`` is 0 where nobody can say how much there is to do.
        """
        before, told = getattr(self, "words", None), f"{words}, {done} of {total}" if total else words
        self.words = words
        self.set_description_str(told, refresh=words != before)

    def clip(self, done: int, total: int, doing: str) -> None:
        """Shows which clip is read or encoded, so that a stall has a name; the ``progress`` of ``build_cache``."""
        self.phase(clip_phase(done, total, doing))

    def close(self) -> None:
        self.ended.set()
        super().close()

    def _renewed(self) -> None:
        while not self.ended.wait(self.seconds):
            self.refresh()


def preparing(words: str, quiet: bool = False) -> LiveBar:
    """A bar for what comes before a run, of which nobody knows how long it takes; ``words``: what is done at first."""
    return LiveBar(desc=words, bar_format="{desc} [{elapsed}]", leave=False, disable=quiet)


class Terminal(Watcher):
    """Shows a run of ``steps`` steps, of which ``done`` are done, as a bar; Ctrl-C asks the run to save and stop.

    A second Ctrl-C stops at once, as usual.  ``quiet``: shows nothing and listens for Ctrl-C alone, as all processes
    but the first do.
    """

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
                for name, words in VALIDATION_WORDS.items()
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
