"""The finished frames of a sampling frame after frame: what later frames are shown of them, and what is kept of that.

Axes: n frames of the batch, f of a chunk, c h w of a latent.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from comfy.model_base import BaseModel
from torch import Tensor

from ..frame_layout import FrameLayout, indices
from .call_part import ModelOptions, TransformerOptions
from .causal_windows import Chunk, denoise_chunk
from .frame_cache import FRAMES_KEY, FrameCache
from .hook_schedules import HookSchedules
from .negative_sides import negative_sides

Conditionings = list[list[dict[str, Any]] | None]
Denoise = Callable[[BaseModel, Conditionings, Tensor, Tensor, ModelOptions], list[Tensor]]
# A conditioning that is limited to a part of sampling is part of what a finished frame is seen with all the same.
LIMITS = ("timestep_start", "timestep_end")
# Of the noise on finished frames: far from the seeds that people give, whose noise the frames begin with.
CONTEXT_SEED = 0x6D61676963


class FinishedFrames(FrameCache):
    """The frames of one sampling: which are finished, and what the network keeps of them for each conditioning.

    ``latents`` are those of all frames as the model sees them, ``n c h w``, right where they are finished; ``chunks``
    are the finished ones in order, ``present`` the one in the making.  ``sigma`` and ``negative_sigma``: the noise
    levels at which conditionings are shown finished frames, positive ones and negative ones.
    """

    def __init__(
        self,
        latents: Tensor,
        clip: int,
        sigma: Tensor,
        negative_sigma: Tensor,
        hooks: HookSchedules,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(device)
        self.keeps = False
        self.latents, self.clip, self.hooks = latents, clip, hooks
        self.sigmas = sigma, negative_sigma
        self.chunks: list[Chunk] = []
        self.present: Chunk | None = None
        self.seen: Counter[tuple[object, int]] = Counter()  # chunks, by conditioning

    def finish(self, chunk: Chunk, latents: Tensor) -> None:
        """Takes in the frames of a chunk, ``f c h w``; the network is shown them when the next call needs it."""
        chunk.put(self.latents, latents)
        self.chunks.append(chunk)

    def first_frames(self, layout: FrameLayout) -> Tensor | None:
        """For each row of a call, the finished first frame of its clip, ``n c h w``; None while it is in the making."""
        if not self.chunks:
            return None
        clips = range(layout.clip_of[0], layout.clip_of[0] + layout.batch)
        rows = tuple(clip * self.clip for clip in clips for _ in range(layout.frames))
        return self.latents[indices(rows, self.latents.device)]

    def show_then_denoise(
        self,
        denoise: Denoise,
        model: BaseModel,
        conds: Conditionings,
        x_in: Tensor,
        timestep: Tensor,
        options: ModelOptions,
    ) -> list[Tensor]:
        """One denoising call for the present chunk, after these conditionings have seen all finished frames."""
        names = {(entry["uuid"], side) for side, entries in enumerate(conds) for entry in entries or ()}
        for number in range(min((self.seen[name] for name in names), default=0), len(self.chunks)):
            unseen = {name for name in names if self.seen[name] <= number}
            for sigma, shown_to in self._levels(unseen, options):
                chosen = [
                    entries and [entry for entry in entries if (entry["uuid"], side) in shown_to]
                    for side, entries in enumerate(conds)
                ]
                self._show(denoise, model, chosen, self.chunks[number], sigma, options)
            self.seen.update(unseen)
        self.begin_step(timestep)
        return denoise_chunk(denoise, model, conds, x_in, timestep, self.present, options, self)

    def _levels(
        self, names: set[tuple[object, int]], options: ModelOptions
    ) -> list[tuple[Tensor, set[tuple[object, int]]]]:
        """The noise levels at which a finished chunk is shown, a call each, and the conditionings that see it there."""
        sigma, negative_sigma = self.sigmas
        apart = negative_sides(options) if negative_sigma is not sigma else frozenset()
        negatives = {(uuid, side) for uuid, side in names if side in apart}
        return [(level, to) for level, to in ((sigma, names - negatives), (negative_sigma, negatives)) if to]

    def clear(self) -> None:
        """Frees all of it, and forgets which frames are finished."""
        super().clear()
        self.chunks.clear()
        self.seen.clear()

    def _show(
        self,
        denoise: Denoise,
        model: BaseModel,
        conds: Conditionings,
        chunk: Chunk,
        sigma: Tensor,
        options: ModelOptions,
    ) -> None:
        """Lets the network keep what it makes of a finished chunk at this noise level."""
        unlimited = [
            entries and [{name: x for name, x in entry.items() if name not in LIMITS} for entry in entries]
            for entries in conds
        ]
        latents = chunk.get_tensor(self.latents)
        sigma = sigma.expand(len(latents))
        x = model.model_sampling.noise_scaling(sigma, self._noise(chunk, latents), latents)
        self.keeps = self.shows_finished = True
        self.begin_step(sigma)
        try:
            with self.hooks.at_the_end(model, options):
                denoise_chunk(denoise, model, unlimited, x, sigma, chunk, options, self)
        finally:
            self.keeps = self.shows_finished = False

    def _noise(self, chunk: Chunk, like: Tensor) -> Tensor:
        """f c h w: a frame's follows from its place in the clip alone, so that an extended clip has the same."""
        rows = [
            torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(CONTEXT_SEED + place % self.clip))
            for place in chunk.index_list
        ]
        return torch.stack(rows).to(like)


def finished_frames(transformer_options: TransformerOptions) -> FinishedFrames | None:
    """The finished frames that a call knows of; None where frames are sampled together."""
    found = transformer_options.get(FRAMES_KEY)
    return found if isinstance(found, FinishedFrames) else None
