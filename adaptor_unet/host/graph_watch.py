"""A training run seen from a graph: the host's progress bar with its preview, and the host's stop button."""

import time

import comfy.model_management
import comfy.utils
from PIL import Image
from torch import Tensor

from .page_words import say_on_node

# Longest side of a preview: words in it can still be read.
PREVIEW = 960
# The page can follow no more.
SECONDS_BETWEEN_WORDS = 0.5


class GraphWatch:
    """What a watcher of a graph does (``training.watchers.Watcher``); keeps the last sample clip, ``f h w 3``.

    The host tells of its stop button in two ways: by a flag, and by an error out of whatever asks for the flag first,
    which takes it back.  The progress bar asks, and so do the host's samplers and its tiled autoencoder.
    """

    # No Exception in newer versions of the host.
    stop_errors = (comfy.model_management.InterruptProcessingException,)

    def __init__(self, steps: int) -> None:
        self.bar = comfy.utils.ProgressBar(steps)
        self.done = 0
        self.stopped_by: BaseException | None = None
        self.last_clip: Tensor | None = None
        self.doing, self.noted, self.next_words = "", "", 0.0

    def phase(self, doing: str, done: int, total: int) -> None:
        """What is done now stands on the node; how much of it is not said at every turn."""
        if doing != self.doing or time.monotonic() >= self.next_words:
            told = f"{doing}, {done} of {total}" if total else doing
            say_on_node(f"{told}\n{self.noted}".strip())
            self.doing, self.next_words = doing, time.monotonic() + SECONDS_BETWEEN_WORDS

    def note(self, sentence: str) -> None:
        self.noted = sentence

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        self.done = done
        self.bar.update_absolute(done, total)

    def preview(self, picture: Image.Image) -> None:
        """Shows a picture on the node until the next one."""
        self.bar.update_absolute(self.done, preview=("PNG", picture, PREVIEW))

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        self.last_clip = frames

    def stop(self) -> bool:
        return comfy.model_management.processing_interrupted()

    def stopped(self, error: BaseException) -> None:
        self.stopped_by = error

    def raise_if_stopped(self) -> None:
        """Ends the node as the host wants it when its stop button was pressed, by its own error."""
        if self.stopped_by is not None:
            raise self.stopped_by
        raise_if_stopped()


def raise_if_stopped() -> None:
    """Raises the host's own error when its stop button was pressed and nobody has told it yet."""
    comfy.model_management.throw_exception_if_processing_interrupted()
