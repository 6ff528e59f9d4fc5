"""What one step sees of its clips: each with its noise, noise levels, caption and frame rate, and those alike together.

Axes: f frames of a clip, c h w of a latent, n tokens, d text channels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fps_embedding import NOT_TOLD
from ..frame_noise import clip_noise
from .data.latent_clip import STILL_FPS, LatentClip, TrainingClips, fault_in
from .settings import MotionModuleSettings, TrainingSettings
from .step_plan import PlannedClip, draw_context, draw_timesteps
from .training_error import ClipError


@dataclass(frozen=True)
class Example:
    """A clip as one step sees it: latents and their noise, ``f c h w``; timesteps, ``f``; text, ``n d``; frame rate.

    ``finished_noise`` and ``finished_timesteps`` are those of the same frames where each is shown to later ones as a
    finished frame; None where none is shown.  ``predicted``: what is wanted is the teacher's prediction, and not the
    clip itself.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor
    fps: float
    finished_noise: Tensor | None = None
    finished_timesteps: Tensor | None = None
    predicted: bool = False

    @property
    def batch_key(self) -> tuple[int, ...]:
        """The sizes of latents and text, and ``predicted``: only examples of one key go through the model together."""
        return (*self.latents.shape, *self.text.shape, self.predicted)


@dataclass(frozen=True)
class Examples:
    """Makes the examples of a run's clips: adds to each what chance decides.

    ``shares``: how often the teacher's prediction is wanted; ``levels``: how many noise levels the model has;
    ``shared_noise``: share of each frame's noise that is the first frame's.
    """

    clips: TrainingClips
    settings: TrainingSettings
    shares: MotionModuleSettings
    levels: int
    shared_noise: float

    def of(self, planned: Iterable[PlannedClip]) -> Iterator[list[Example]]:
        """The examples of the planned clips, as lists of one key, each of at most ``clips_at_once``.

        What waits for others of its key waits in main memory: no more than ``clips_at_once`` of each key.  Raises
        ClipError for a clip that cannot be read, or that nothing can be learnt from.
        """
        waiting: dict[tuple[int, ...], list[Example]] = {}
        for clip in planned:
            example = self._example(clip)
            alike = waiting.setdefault(example.batch_key, [])
            alike.append(example)
            if len(alike) == self.settings.clips_at_once:
                yield waiting.pop(example.batch_key)
        yield from waiting.values()

    def _example(self, planned: PlannedClip) -> Example:
        """A clip with all that chance gives it, drawn in this order."""
        clip, generator, settings = self._clip(planned.item), planned.generator(), self.settings
        predicted = planned.taught and float(torch.rand(1, generator=generator)) < self.shares.prediction_share
        if predicted:  # the teacher knows one noise level a clip
            settings = replace(settings, frame_noise_levels="one_a_clip")
        frames, shape = len(clip.latents), tuple(clip.latents.shape)
        timesteps = draw_timesteps(settings, self.levels, frames, generator)
        dropped = float(torch.rand(1, generator=generator)) < settings.caption_dropout
        text = self.clips.empty_text if dropped else clip.text
        noise = clip_noise(shape, generator, self.shared_noise)
        fps = NOT_TOLD if dropped and settings.fps_guidance else clip.fps or STILL_FPS
        example = Example(clip.latents, noise, timesteps, text, fps, predicted=predicted)
        if settings.frame_noise_levels != "finished_frames":
            return example
        finished = draw_context(settings, self.levels, frames, generator)
        return replace(example, finished_timesteps=finished, finished_noise=torch.randn(shape, generator=generator))

    def _clip(self, item: int) -> LatentClip:
        """Raises ClipError for one that cannot be read, or that nothing can be learnt from."""
        try:
            clip = self.clips.train[item]
        except ValueError as error:
            raise ClipError(str(error)) from error
        named = f"Item {item + 1} of the clips, with the caption {clip.caption!r:.80},"
        fault = fault_in(clip.latents, clip.text)
        if fault == "not finite":
            raise ClipError(
                f"{named} has values that are not finite numbers. Take it out, or encode it again in 32 bits."
            )
        if fault == "all zeros":
            raise ClipError(
                f"{named} is empty: its latents are all zeros, and nothing can be learnt from them. Take it out, or "
                "encode it again."
            )
        return clip
