"""Causal windows: a long batch goes through the UNet chunk by chunk, in frame order, with the result of the whole.

A frame depends on itself and on the frames before it only.  So a chunk needs of all others just what effects keep of
the frames before, such as the keys and values of temporal attention, which a cache hands on.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import comfy.model_management
import torch
from comfy.conds import CONDRegular
from comfy.context_windows import ContextHandlerABC, ContextWindowABC
from comfy.model_base import BaseModel
from torch import Tensor

from ..frame_layout import indices
from .call_part import ModelOptions
from .frame_cache import FRAMES_KEY, FrameCache

logger = logging.getLogger(__name__)

Conditioning = dict[str, Any]


class Chunk(ContextWindowABC):
    """Some frames of a batch, by their places in it, in the host's form of a window."""

    def __init__(self, places: Sequence[int], total: int) -> None:
        self.index_list = list(places)
        self.context_length = len(self.index_list)
        self.total_frames = total
        self.dim = 0

    def rows(self, device: torch.device) -> Tensor:
        """The places, to index a batch with on that device."""
        return indices(tuple(self.index_list), device)

    def get_tensor(self, full: Tensor) -> Tensor:
        """n ... -> f ...; one row for all stays one."""
        return full if full.shape[0] == 1 else full[self.rows(full.device)]

    def put(self, full: Tensor, part: Tensor) -> None:
        """Writes the chunk's frames, f ..., in their places among those of the batch."""
        full[self.rows(full.device)] = part.to(full)

    def add_window(self, full: Tensor, to_add: Tensor) -> Tensor:
        """Adds the chunk's frames to those of the batch."""
        full[self.rows(full.device)] += to_add
        return full


@dataclass(frozen=True)
class CausalWindows(ContextHandlerABC):
    """What the Causal Windows node sets as the model's context handler; checks itself.

    chunk_frames: most frames of one UNet call and conditioning.  offload: whether the past waits in main memory.
    clip_lengths: each ``frames_per_clip`` of the model's effects; no chunk holds frames of two clips.
    """

    chunk_frames: int = 8
    offload: bool = False
    clip_lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.chunk_frames < 1:
            raise ValueError(f"chunk_frames of Causal Windows must be 1 or more, found {self.chunk_frames}.")

    def should_use_context(
        self, model: BaseModel, conds: list, x_in: Tensor, timestep: Tensor, model_options: ModelOptions
    ) -> bool:
        """Only a batch of more frames than a chunk is cut."""
        return x_in.shape[0] > self.chunk_frames

    def get_resized_cond(
        self, cond_in: list[dict] | None, x_in: Tensor, window: Chunk, device: torch.device | None = None
    ) -> list[dict] | None:
        """A conditioning's entries for the frames of one chunk."""
        return chunk_entries(cond_in, window)

    def execute(
        self,
        calc_cond_batch: Callable,
        model: BaseModel,
        conds: list,
        x_in: Tensor,
        timestep: Tensor,
        model_options: ModelOptions,
    ) -> list[Tensor]:
        """One denoising call, ``n c h w`` for each conditioning, as the host would compute it in one piece."""
        whole = [torch.empty_like(x_in) for _ in conds]
        cache = FrameCache(torch.device("cpu") if self.offload else None)
        cache.begin_step(timestep)
        try:
            for chunk in self.chunks(x_in.shape[0]):
                rows = (chunk.get_tensor(x) for x in (x_in, timestep))
                parts = denoise_chunk(calc_cond_batch, model, conds, *rows, chunk, model_options, cache)
                for all_frames, part in zip(whole, parts, strict=True):
                    chunk.put(all_frames, part)
        finally:
            cache.clear()
        return whole

    def chunks(self, total: int) -> Iterator[Chunk]:
        """Chunks of at most ``chunk_frames`` frames, in frame order; each clip begins a new one."""
        bounds = sorted({0, total}.union(*(range(0, total, length) for length in self.clip_lengths)))
        for clip_start, clip_end in pairwise(bounds):
            for start in range(clip_start, clip_end, self.chunk_frames):
                yield Chunk(range(start, min(start + self.chunk_frames, clip_end)), total)


def windows_of(model_options: ModelOptions) -> CausalWindows | None:
    """The causal windows of a model; None where it has none, or others."""
    handler = model_options.get("context_handler")
    return handler if isinstance(handler, CausalWindows) else None


def denoise_chunk(
    denoise: Callable,
    model: BaseModel,
    conds: list,
    x: Tensor,
    timestep: Tensor,
    chunk: Chunk,
    options: ModelOptions,
    cache: FrameCache,
) -> list[Tensor]:
    """One denoising call for a chunk, ``f c h w`` for each conditioning; x and timestep are the chunk's own rows."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    cache.begin_chunk()
    own = [chunk_entries(entries, chunk) for entries in conds]
    return denoise(model, own, x, timestep, chunk_options(options, chunk, cache))


def chunk_entries(entries: list[Conditioning] | None, chunk: Chunk) -> list[Conditioning] | None:
    """A conditioning's entries for the frames of a chunk."""
    return entries and [chunk_conditioning(entry, chunk.index_list, chunk.total_frames) for entry in entries]


def chunk_options(model_options: ModelOptions, chunk: Chunk, cache: FrameCache) -> ModelOptions:
    """The options with the chunk's frames, where the host and other nodes look for them, and with the past."""
    options = {**model_options["transformer_options"], "context_window": chunk, FRAMES_KEY: cache}
    return with_frame_record({**model_options, "transformer_options": options}, chunk.index_list, chunk.total_frames)


def with_frame_record(model_options: ModelOptions, places: Sequence[int], total: int) -> ModelOptions:
    """The options with ``ad_params``, the record that image-prompt adapters read: which frames of how many a call
    holds.  Another node's own is left alone."""
    record = {"sub_idxs": list(places), "full_length": total, "context_length": len(places)}
    return {**model_options, "transformer_options": {"ad_params": record, **model_options["transformer_options"]}}


def rows_for(x: Tensor, places: Sequence[int]) -> Tensor:
    """n ... -> f ...: the rows that the host would lay on these frames; one row for all stays one.

    The host repeats a batch that is too short from its start, and cuts one that is too long.
    """
    return x if x.shape[0] == 1 else x[indices(tuple(place % x.shape[0] for place in places), x.device)]


def chunk_conditioning(conditioning: Conditioning, places: Sequence[int], frames: int) -> Conditioning:
    """One entry of a conditioning as the ``places`` of a batch of ``frames`` see it; the entry itself stays as it is.

    Masks and what the model takes follow the host's own rule for batches of another length.  Any other tensor with a
    row for each frame is cut to its rows.
    """
    cut = dict(conditioning)
    for name, value in conditioning.items():
        if isinstance(value, Tensor) and value.ndim > 0 and frames > 1 and value.shape[0] == frames:
            cut[name] = rows_for(value, places)
    if "mask" in conditioning:
        cut["mask"] = rows_for(conditioning["mask"], places)
    model_conds = conditioning.get("model_conds", {})
    cut["model_conds"] = {name: cut_model_cond(value, places) for name, value in model_conds.items()}
    return cut


def cut_model_cond(value: CONDRegular, places: Sequence[int]) -> CONDRegular:
    """What one input of the model is for these frames; a constant, such as a frame count, stays."""
    if isinstance(value.cond, list):
        return value._copy_with([rows_for(x, places) if isinstance(x, Tensor) else x for x in value.cond])
    return value._copy_with(rows_for(value.cond, places)) if isinstance(value.cond, Tensor) else value
