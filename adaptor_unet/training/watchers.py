"""Who watches a run: told of its numbers and sample clips, and asked whether it should stop.

Here are the watchers that write a run down beside its adaptor; ``terminal.py`` has the one for a person who waits.
"""

import errno
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from einops import rearrange
from torch import Tensor

from ..whole_file import OutputError, writing, written_whole
from .progress_pictures import save_clip, save_loss_plot

logger = logging.getLogger(__name__)

# Phases of a run.
TIMING, TRAINING, VALIDATION = "timing a pass", "training", "validation"
SAMPLE, DECODING, SAVING = "sample clip", "decoding the sample clip", "saving"
# Steps between two drawings of the losses.
PLOT_EVERY = 25


def clip_phase(done: int, total: int, doing: str) -> str:
    """How the phase is called while clips are prepared; arguments as for ``progress`` of ``build_cache``."""
    return f"clip {done + 1} of {total}: {doing}" if done < total else doing


class Watcher:
    """Told of everything, on the first process only; ``stop`` is asked on every process before each step.

    A watcher may also ask to stop at once, by an error of ``stop_errors`` in the middle of anything: the run saves
    what there is, ends as it does after ``stop``, and tells ``stopped`` of the error.  Each method does nothing here,
    so a watcher has those that it needs.
    """

    stop_errors: tuple[type[BaseException], ...] = ()

    def phase(self, doing: str, done: int, total: int) -> None:
        """Told what is done now, and how much of it: "validation", 3 of 16; ``total`` is 0 where nobody can say."""

    def note(self, sentence: str) -> None:
        """Told a sentence for whoever waits."""

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        """Told after a step: loss, gradient, rate, seconds; now and then the validation loss too."""

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        """Told of a sample clip, ``f h w 3`` in 0 to 1, and of the name of its file."""

    def stop(self) -> bool:
        """Whether the run should save and stop."""
        return False

    def stopped(self, error: BaseException) -> None:
        """Told of an error of ``stop_errors`` that has ended the run."""

    def close(self) -> None:
        """Called after the last step, also when it failed."""


class Watchers(Watcher):
    """Several watchers as one; each is told in turn."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = tuple(watchers)
        self.stop_errors = tuple(error for watcher in self.watchers for error in watcher.stop_errors)

    def phase(self, doing: str, done: int, total: int) -> None:
        for watcher in self.watchers:
            watcher.phase(doing, done, total)

    def note(self, sentence: str) -> None:
        for watcher in self.watchers:
            watcher.note(sentence)

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        for watcher in self.watchers:
            watcher.numbers(done, total, values)

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        for watcher in self.watchers:
            watcher.clip(done, name, frames)

    def stop(self) -> bool:
        return any(watcher.stop() for watcher in self.watchers)

    def stopped(self, error: BaseException) -> None:
        for watcher in self.watchers:
            watcher.stopped(error)

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()


class Record(Watcher):
    """Writes a run down in a folder: ``metrics.jsonl``, ``loss.png`` and ``samples/``.

    A run that is resumed at a step goes on in the same files.  ``fps``: frame rate of the sample clips.
    """

    def __init__(self, folder: Path, resumed_at: int, fps: float) -> None:
        self.folder, self.fps = folder, fps
        self.path = folder / "metrics.jsonl"
        kept = read_records(self.path) if resumed_at else []
        # What an interrupted run wrote after its last saved state happens again.
        self.records = [record for record in kept if record["step"] <= resumed_at]
        with written_whole(self.path) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8")

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        record = {"step": done, **values}
        self.records.append(record)
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if done % PLOT_EVERY == 0 or done == total:
            with drawing(self.folder / "loss.png") as path:
                save_loss_plot(self.records, path)

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        with drawing(self.folder / "samples" / f"{name}.webp") as path:
            save_clip(frames, self.fps, path)


@contextmanager
def drawing(path: Path) -> Iterator[Path]:
    """Stands around what draws a picture.  Where an old one is there and cannot be replaced, because another program
    holds it, it stays and the log says so.

    Raises OutputError for anything else, such as a full disk.
    """
    try:
        with writing(path):
            yield path
    except OutputError as error:
        if error.errno not in (errno.EACCES, errno.EPERM) or not path.exists():
            raise
        logger.warning("%s", error)


class TensorBoard(Watcher):
    """Writes TensorBoard's files of a run, in ``folder/tensorboard``.

    Raises ImportError with a sentence when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        self.fps = fps
        self.writer = summary_writer()(str(folder / "tensorboard"))

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, done)
        self.writer.flush()

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        """Shows the clip as a strip of frames: TensorBoard's own video needs moviepy."""
        self.writer.add_image("sample", rearrange(frames, "f h w c -> h (f w) c"), done, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def summary_writer() -> type:
    """TensorBoard's writer.  Raises ImportError with a sentence when TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("TensorBoard is not installed: pip install tensorboard, or leave it out.") from error
    return SummaryWriter


def read_records(path: Path) -> list[dict[str, float]]:
    """All whole lines of ``metrics.jsonl``; one that a killed run left half written, or that is damaged, is dropped."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and all(type(value) in (int, float) for value in record.values()):
            if type(record.get("step")) is int:
                records.append(record)
                continue
        logger.warning("%s: dropped a line that was cut short", path.name)
    return records
