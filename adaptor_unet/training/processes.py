"""One process or many: Hugging Face Accelerate, imported only when something is trained."""

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
