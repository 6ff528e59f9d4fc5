"""Errors that end a training with a sentence, and the one that may come from anywhere: memory that is too short."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.checkpoint import CheckpointError

from .settings import TrainingSettings
from .watchers import SAMPLE, VALIDATION

# What all of the errors are that may mean it; ``is_out_of_memory`` tells.
MAY_BE_MEMORY = (RuntimeError, MemoryError)
# Of the allocators of processors, GPUs and their libraries.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

# The parts of a run that a setting leaves out.
LEFT_OUT = {VALIDATION: "validate_every", SAMPLE: "sample_every"}


class TrainingError(RuntimeError):
    """A run that cannot go on: names the step, what happened and what to do."""


class ClipError(TrainingError):
    """A clip that cannot be read, or that nothing can be learnt from: names it."""


class OtherProcessError(TrainingError):
    """Another process of the same run cannot go on; its own error says why."""


class OutOfMemoryError(TrainingError):
    """Memory was too short: names what for, and what to lower."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was too short.

    The host's attention takes smaller pieces when little memory is free.  If that changes between a block's first
    pass and the one for its gradients, the two do not match, which ``torch.utils.checkpoint`` tells by an error of its
    own.
    """
    if isinstance(error, OutOfMemoryError):
        return False  # told already
    return isinstance(error, (MemoryError, CheckpointError)) or any(words in str(error).lower() for words in WORDS)


def clear_frames(error: BaseException | None) -> None:
    """Lets go of the tensors that the functions in which an error arose still hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def free_memory(error: BaseException | None) -> None:
    """As ``clear_frames``, and lets go of torch's reserves."""
    from accelerate.utils import release_memory

    clear_frames(error)
    release_memory()


@contextmanager
def enough_memory(doing: str, lower: str) -> Iterator[None]:
    """A context for what needs much memory: raises OutOfMemoryError when that is too short.

    The error says what was going on, ``doing``, and what to ``lower``.
    """
    try:
        yield
    except MAY_BE_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"Out of memory while {doing}. {lower}") from error


def lower(doing: str, settings: TrainingSettings, card: bool = False) -> str:
    """What to lower when memory is too short for a part of a run; first what a run can be resumed with.

    ``card``: whether it is a card's memory, beside which there is main memory.
    """
    if doing in LEFT_OUT:
        return f"Go on with {LEFT_OUT[doing]} = 0, which leaves it out."
    if settings.clips_at_once > 1:
        return f"Go on with clips_at_once below {settings.clips_at_once}."
    if not settings.checkpointing:
        return "Go on with checkpointing, which takes far less."
    if card and not settings.offload_activations:
        return "Go on with offload_activations, which takes far less on the card."
    if card and not settings.frames_at_once:
        return "Go on with frames_at_once 1, which takes less, and a little more time."
    if card and settings.base_precision == "auto" and settings.base_tuning != "full":
        return "Go on with base_precision fp8, which takes less for the base."
    if card and not settings.offload_averages:
        return "Go on with offload_averages, which takes less on the card."
    less = "frames, width or height"
    if settings.base_tuning == "full":
        less += ", or take base_tuning lora or frozen"
    return f"Lower {less}, in a new run, which may start from the adaptor of this one."
