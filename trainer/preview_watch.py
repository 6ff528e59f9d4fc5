"""What the page shows on the training node while clips are encoded and a run goes: phases, losses and sample clips."""

import time

from torch import Tensor

from ..adaptor_unet.host.graph_watch import GraphWatch, raise_if_stopped
from ..adaptor_unet.training.progress_pictures import progress_picture
from ..adaptor_unet.training.watchers import Record, Watcher, clip_phase

# Drawing takes a moment, and steps of a small model are quick.
SECONDS_BETWEEN_LOOKS = 5.0


class PreviewWatch(GraphWatch, Watcher):
    """Shows the losses on the node as the run goes, and the last sample clip below them, all frames at once.

    What ``record`` holds is drawn, so it must be told before this watcher is.
    """

    def __init__(self, steps: int, record: Record) -> None:
        super().__init__(steps)
        self.record = record
        self.next_look = 0.0

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        super().numbers(done, total, values)
        if time.monotonic() >= self.next_look:
            self.show()

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        super().clip(done, name, frames)
        self.show()

    def show(self) -> None:
        """Draws losses and sample clip anew."""
        self.preview(progress_picture(self.record.records, self.last_clip))
        self.next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS


def show_clip(watch: GraphWatch, done: int, total: int, doing: str) -> None:
    """A ``progress`` of ``build_cache``: the node's bar counts the clips.

    Raises the host's own error when its stop button was pressed.
    """
    watch.phase(clip_phase(done, total, doing), 0, 0)
    watch.numbers(done, total, {})
    raise_if_stopped()
