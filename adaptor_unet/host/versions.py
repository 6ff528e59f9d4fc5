"""All that differs between the supported versions of the host (ComfyUI 0.3.75 and later)."""

from dataclasses import fields
from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor


def schema(**settings: Any) -> io.Schema:  # noqa: ANN401 - whatever the host's schema takes
    """A node schema without the settings that this host does not know yet (``search_aliases`` came with 0.11)."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(**{name: value for name, value in settings.items() if name in known})


def unchanging_seed() -> object:
    """What a seed's input says of the value behind it so that the page leaves the seed alone after a run.

    An older host knows only that there is such a value, and its page draws a new seed each time; without the value,
    saved graphs would be read wrongly.
    """
    choices = getattr(io, "ControlAfterGenerate", None)
    return choices.fixed if choices else True


def not_given(why: str) -> ExecutionBlocker:
    """In place of an output that a node does not give this time: whatever is connected to it says why."""
    return ExecutionBlocker(why)


def patcher_class() -> type[comfy.model_patcher.ModelPatcher]:
    """The class that the host uses for models: newer ones load weights as they are needed."""
    return getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def is_copy(one: comfy.model_patcher.ModelPatcher, other: comfy.model_patcher.ModelPatcher | None) -> bool:
    """Whether a patcher was made of the other by the host, on another card too; older hosts know one card alone."""
    origin = getattr(one, "clone_base_uuid", None)
    return origin is not None and other is not None and origin == other.clone_base_uuid


def window_frames(window: Any) -> list[int]:  # noqa: ANN401 - the host's window classes share no base with an index list
    """Frames of the whole batch that a context window of the host holds, in the order of its rows.

    In newer hosts a window may begin with one more frame, cut off again behind the model.
    """
    anchor = getattr(window, "causal_anchor_index", None)
    return ([anchor] if anchor is not None and anchor >= 0 else []) + list(window.index_list)


def most_window_frames(model_options: dict[str, Any]) -> int | None:
    """Most frames that one context window of the host holds, the one in front included; None where none cuts them."""
    handler = model_options.get("context_handler")
    length = getattr(handler, "context_length", None)
    if length is None or getattr(handler, "dim", 0) != 0:
        return None
    return length + bool(getattr(handler, "causal_window_fix", False))


def text_encoder_weights(clip: comfy.sd.CLIP) -> dict[str, Tensor]:
    """The text encoder's tensors; in newer hosts they may have to be brought together first."""
    return getattr(clip, "state_dict_for_saving", clip.get_sd)()


def full_mask(noise_mask: Tensor, shape: torch.Size) -> Tensor:
    """A noise mask in the shape of the latents ``n c h w``: newer hosts have brought it there before they sample."""
    return noise_mask if noise_mask.shape == shape else comfy.utils.reshape_mask(noise_mask, shape)


# In newer hosts a control object, and the options of a model, hold the copies for further devices under this name.
DEVICE_COPIES = "multigpu_clones"
# Where they split guidance over several cards, each in a thread of its own, the options of a call name its card so.
CARD_OF_CALL = "multigpu_thread_device"

# Wrappers that the host's own context windows set beside their handler, which they need; newer hosts have the second.
STOCK_WINDOW_WRAPPERS = (
    (WrappersMP.PREPARE_SAMPLING, "ContextWindows_prepare_sampling"),
    (WrappersMP.SAMPLER_SAMPLE, "ContextWindows_sampler_sample"),
)
