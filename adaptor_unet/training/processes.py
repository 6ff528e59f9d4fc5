"""One process or many: Hugging Face Accelerate, imported only when something is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerator(cpu: bool) -> "Accelerator":
    """This process's place among all of them.  Raises ImportError with a sentence when Accelerate is not installed."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ImportError("Training needs accelerate: run `pip install accelerate` in ComfyUI's Python.") from error
    return Accelerator(cpu=cpu)


@contextmanager
def processes(cpu: bool) -> Iterator["Accelerator"]:
    """As ``accelerator``, for a command: lets go of the other processes before its own one ends.

    Left to the interpreter's exit, a waiting thread can abort a process that has done its work.  After an error the
    others may still wait for this one, and letting go of them could wait as well; the launcher ends them.
    """
    place = accelerator(cpu)
    yield place
    place.end_training()
