"""A progress bar that shows that something goes on: its clock is renewed also while no step is finished."""

import sys
import threading
from typing import TextIO

from tqdm import tqdm

# Between two looks at the clock: in a terminal, and in a file, where each is a line of its own.
SECONDS, SECONDS_IN_A_FILE = 1.0, 3.0


class Lines:
    """What stands for a terminal where there is none: each state of a bar is a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.encoding = file, getattr(file, "encoding", None)

    def write(self, text: str) -> None:
        line = text.replace("\r", "").strip()
        if line:
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        self.file.flush()


class LiveBar(tqdm):
    """A bar on the standard error stream; arguments as for tqdm."""

    def __init__(self, **how: object) -> None:
        self.ended = threading.Event()
        terminal = sys.stderr.isatty()
        self.seconds = SECONDS if terminal else SECONDS_IN_A_FILE
        file = sys.stderr if terminal else Lines(sys.stderr)
        super().__init__(file=file, mininterval=0.1 if terminal else self.seconds, dynamic_ncols=terminal, **how)
        if not self.disable:
            threading.Thread(target=self._renewed, daemon=True).start()

    def phase(self, words: str, done: int = 0, total: int = 0) -> None:
        """What is being done now; how much of it is shown with the next look at the clock."""
        before, told = getattr(self, "words", None), f"{words}, {done} of {total}" if total else words
        self.words = words
        self.set_description_str(told, refresh=words != before)

    def close(self) -> None:
        self.ended.set()
        super().close()

    def _renewed(self) -> None:
        while not self.ended.wait(self.seconds):
            self.refresh()


def preparing(words: str, quiet: bool = False) -> LiveBar:
    """A bar for what comes before a run, of which nobody knows how long it takes."""
    return LiveBar(desc=words, bar_format="{desc} [{elapsed}]", leave=False, disable=quiet)
