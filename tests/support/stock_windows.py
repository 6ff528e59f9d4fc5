"""The host's own context windows, as its node sets them."""

from inspect import signature

import comfy.context_windows
import torch
from comfy.model_patcher import ModelPatcher


class Windows(comfy.context_windows.IndexListContextHandler):
    """The host's own handler; its version 0.3.75 cannot compare the noise level of more than one row."""

    def set_step(self, timestep: torch.Tensor, model_options: dict) -> None:
        super().set_step(timestep[:1], model_options)


def with_windows(model: ModelPatcher, length: int, overlap: int, schedule: str, **more: object) -> ModelPatcher:
    """As the stock Context Windows node does it."""
    windowed = model.clone()
    settings = {"context_stride": 1, "closed_loop": False, "dim": 0} | more
    windowed.model_options["context_handler"] = Windows(
        context_schedule=comfy.context_windows.get_matching_context_schedule(schedule),
        fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=length,
        context_overlap=overlap,
        **settings,
    )
    comfy.context_windows.create_prepare_sampling_wrapper(windowed)
    return windowed


HANDLER = comfy.context_windows.IndexListContextHandler
# In newer hosts a window begins with one more frame unless it is told not to.
NO_ANCHOR = {"causal_window_fix": False} if "causal_window_fix" in signature(HANDLER.__init__).parameters else {}
