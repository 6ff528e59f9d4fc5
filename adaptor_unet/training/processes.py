"""The processes of a training: this one's place among all of them, by Hugging Face Accelerate."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .settings import TrainingSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

# How long one process waits for another: the first encodes all clips before the others read them.
WAITS = timedelta(days=7)


def check_processes(settings: TrainingSettings, processes: int) -> None:
    """Raises ValueError when there are not enough clips in a step for all processes."""
    if settings.batch < processes:
        raise ValueError(f"batch is {settings.batch}, but there are {processes} processes, and each needs a clip.")


def accelerator(cpu: bool) -> "Accelerator":
    """This process's place among all of them.  Raises ImportError with a sentence when Accelerate is not installed."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise ImportError("Training needs accelerate: run `pip install accelerate` in ComfyUI's Python.") from error
    return Accelerator(cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=WAITS)])


@contextmanager
def processes(cpu: bool) -> Iterator["Accelerator"]:
    """``accelerator`` as a context for a command: lets go of the other processes before its own one ends.

    Of the pack's log only errors come from others than the first, so that nothing is said several times.
    Left to the interpreter's exit, a waiting thread can abort a process that has done its work.  After an error the
    others may still wait for this one, and letting go of them could wait as well; the launcher ends them.
    """
    place = accelerator(cpu)
    if not place.is_main_process:
        logging.getLogger(__name__.partition(".")[0]).setLevel(logging.ERROR)
    yield place
    place.end_training()


def is_true_anywhere(place: "Accelerator", here: bool) -> bool:
    """Whether something is so on one process at least.  All processes must ask, and get the same answer."""
    if place.num_processes == 1:
        return here
    return bool(place.reduce(torch.tensor(float(here), device=place.device), "sum") > 0)


def add_up(place: "Accelerator", total: Tensor, parameters: Iterable[Tensor]) -> None:
    """Sums a loss and the gradients of parameters over all processes, where they lie.

    Nothing is copied, also because memory that is too short for a copy on one process would leave the others waiting.
    Accelerate's own ``reduce`` makes one.
    """
    if place.num_processes == 1:
        return
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    sums = [torch.distributed.all_reduce(tensor, async_op=True) for tensor in (total, *gradients)]
    for one in sums:
        one.wait()
