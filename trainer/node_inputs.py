"""What the inputs of the training node ask for: settings, and clips from a folder or from a graph's wires.

Every input is a list, because clips may come as lists.
Axes: f frames, h w of a picture or latent, c channels, n tokens, d text channels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adaptor_unet.host.caption_tensor import POOLED
from ..adaptor_unet.host.folders import clips_folder
from ..adaptor_unet.host.training_files import HostEncoders
from ..adaptor_unet.training.data.data_settings import DataSettings
from ..adaptor_unet.training.data.framing import draw_framing, frame_size, framed
from ..adaptor_unet.training.data.latent_cache import FRAMES_AT_ONCE
from ..adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from ..adaptor_unet.training.data.prepare import spread
from ..adaptor_unet.training.data.sub_clips import UnfitClipError, draw_sub_clips
from ..adaptor_unet.training.data.teacher_clips import read_prompts
from ..adaptor_unet.training.settings import ALL_SETTINGS, RunSettings
from ..adaptor_unet.training.settings_text import parse_toml
from ..adaptor_unet.training.training_error import enough_memory

# Settings that are inputs of the node itself, by name; those of older graphs lack the last one.
INPUTS = {
    name: ALL_SETTINGS[name]
    for name in ("steps", "frames", "width", "height", "learning_rate", "base_tuning", "seed", "train")
}


@dataclass(frozen=True)
class WiredClips:
    """What is connected to the trainer; exactly one of the three must be.  ``fps`` is that of images and latents.

    Raises ValueError when nothing or too much is connected, or captions and clips do not match.
    """

    images: Sequence[Tensor] = ()
    videos: Sequence[Any] = ()
    latents: Sequence[dict[str, Tensor]] = ()
    captions: Sequence[str] = ()
    conditionings: Sequence[list] = ()
    fps: float = 8.0

    def encoded(
        self, data: DataSettings, encoders: HostEncoders, progress: Callable[[int, int, str], None]
    ) -> TrainingClips:
        """Sub-clips of all, encoded and in memory.  ``progress`` is told how many clips are done, of how many."""
        progress(0, len(self._frames), "encoding captions")
        empty = encoders.text("")
        texts = self._texts(data, encoders)
        clips: list[LatentClip] = []
        for place, (frames, fps) in enumerate(self._frames):
            (text, caption), random = texts[place % len(texts)], Random(f"{data.seed} {place}")
            for chosen, rate in sub_clips(frames, fps, data, random, place):
                progress(place, len(self._frames), "encoding")
                with enough_memory(f"clip {place + 1} is encoded", "Lower width or height."):
                    latents = self._latents(chosen, data, random, encoders)
                check_values(latents, text, place)
                clips.append(LatentClip(latents, rate, text, caption))
        train = MemoryClips(tuple(clips))
        return TrainingClips(train, spread(train, 4), empty)

    def given(self, data: DataSettings, encoders: HostEncoders) -> Iterator[tuple[str, Tensor]]:
        """All that came over the wires, with names; before it is encoded, which may differ in the last digit."""
        kind = "latents" if self.latents else "videos" if self.videos else "images"
        yield f"{kind} {self.fps} {list(self.captions)}", torch.zeros(0)
        for frames, fps in self._frames:
            yield f"clip {fps}", frames
        for caption in self.captions:
            if named := encoders.beside_words(data.captioned(caption)):
                yield f"embeddings {named}", torch.zeros(0)
        for conditioning in self.conditionings:
            yield "conditioning", conditioning[0][0]
            if (vector := conditioning[0][1].get(POOLED)) is not None:
                yield "pooled", vector

    @cached_property
    def _frames(self) -> list[tuple[Tensor, float]]:
        if self.latents:
            return [(latent["samples"], self.fps) for latent in self.latents]
        if self.videos:
            parts = [video.get_components() for video in self.videos]
            return [(part.images, float(Fraction(part.frame_rate))) for part in parts]
        return [(images, self.fps) for images in self.images]

    def _texts(self, data: DataSettings, encoders: HostEncoders) -> list[tuple[Tensor, str]]:
        """n d and the words, one for all clips or one for each."""
        count = len(self.latents or self.videos or self.images)
        ready = [(encoders.kept(conditioning), "") for conditioning in self.conditionings]
        prefixed = [data.captioned(caption) for caption in self.captions or [""]]
        texts = ready or [(encoders.text(caption), caption) for caption in prefixed]
        if len(texts) not in (1, count):
            raise ValueError(f"There are {len(texts)} captions for {count} clips; give one for all, or one for each.")
        return texts

    def _latents(self, frames: Tensor, data: DataSettings, random: Random, encoders: HostEncoders) -> Tensor:
        """f c h w, from latents as they are or from pictures by the autoencoder."""
        if self.latents:
            return encoders.model.model.process_latent_in(frames).float().cpu().clone()
        size = frame_size(frames.shape[2], frames.shape[1], data)
        bytes_ = (frames[..., :3] * 255).round().to(torch.uint8)
        pictures = torch.stack(list(framed(bytes_, size, draw_framing(data, random))))
        return torch.cat([encoders.pictures(piece) for piece in pictures.split(FRAMES_AT_ONCE)])


def check_values(latents: Tensor, text: Tensor, place: int) -> None:
    """Raises ValueError for a clip that nothing can be learnt from."""
    if not (latents.isfinite().all() and text.isfinite().all()):
        raise ValueError(
            f"Clip {place + 1} for Train MagicVideo Adaptor, or its caption, has values that are not finite numbers. "
            "Mend what makes them."
        )
    if not latents.any():
        raise ValueError(
            f"Clip {place + 1} for Train MagicVideo Adaptor is an empty latent, all zeros. Connect an encoded clip."
        )


def sub_clips(frames: Tensor, fps: float, data: DataSettings, random: Random, place: int) -> list[tuple[Tensor, float]]:
    """Random sub-clips of one clip, ``f ...`` and their frame rate; a single frame is a still, of rate 0."""
    if len(frames) == 1:
        return [(frames, 0.0)]
    times = [index / fps for index in range(len(frames))]
    found: dict[tuple[float, ...], float] = {}
    try:
        for sub_clip in draw_sub_clips(times, len(frames) / fps, data, random):
            found[sub_clip.times] = sub_clip.fps
    except UnfitClipError as error:
        raise ValueError(f"Clip {place + 1} of the batch {error}.") from error
    return [(frames[[round(time * fps) for time in times]], rate) for times, rate in found.items()]


def settings_asked_for(wired: dict[str, list[Any]]) -> RunSettings:
    """The node's own settings and those in its ``settings`` text.  Raises ValueError for what cannot be."""
    text = (wired.get("settings") or [""])[0]
    try:
        others = parse_toml(text)
    except ValueError as error:
        raise ValueError(f"settings of Train MagicVideo Adaptor cannot be read: {error}") from error
    for name in INPUTS:
        if name in others:
            raise ValueError(f"{name} is an input of Train MagicVideo Adaptor itself: set it there, not in settings.")
    if "start" in others:
        raise ValueError("To begin from an adaptor, connect it to Train MagicVideo Adaptor.")
    return RunSettings.from_values({name: wired[name][0] for name in INPUTS if wired.get(name)} | others)


def module_asked_for(wired: dict[str, list[Any]], train: str) -> tuple[ModelPatcher | None, tuple[str, ...]]:
    """The motion module and, where it is a teacher, the prompts.  Raises ValueError for what does not go together."""
    module, text = (wired.get("motion_module") or [None])[0], "\n".join(wired.get("prompts") or [])
    if train == "motion_lora":
        if module is None:
            raise ValueError(
                "Train MagicVideo Adaptor is to train a MotionLoRA, but has no motion module to train it on. Connect "
                "Load Motion Module to motion_module."
            )
        if text.strip() or wired.get("adaptor"):
            other = "prompts are" if text.strip() else "the adaptor is"
            raise ValueError(
                f"Train MagicVideo Adaptor is to train a MotionLoRA, for which {other} of no use. Take that out, or "
                "set train to adaptor."
            )
        return module, ()
    if module is None:
        if text.strip():
            raise ValueError(
                "prompts of Train MagicVideo Adaptor are for a motion module that teaches, and none is connected. "
                "Connect Load Motion Module to motion_module, or leave prompts empty."
            )
        return None, ()
    try:
        return module, read_prompts(text)
    except ValueError as error:
        raise ValueError(f"prompts of Train MagicVideo Adaptor: {error}.") from error


def clips_asked_for(wired: dict[str, list[Any]], needed: bool = True) -> Path | WiredClips | None:
    """The folder or the connected clips; None where there are none and none are ``needed``.

    Raises ValueError unless there is exactly one source.
    """
    folder = wired["clips_folder"][0].strip().strip('"')
    sources = {name: wired[name] for name in ("images", "videos", "latents") if wired.get(name)}
    if not sources and not folder and not needed:
        return None
    if len(sources) + bool(folder) != 1:
        given = [*(["clips_folder"] if folder else []), *sources]
        raise ValueError(
            "Train MagicVideo Adaptor needs clips from exactly one of clips_folder, images, videos and latents; "
            f"found {', '.join(given) or 'none'}."
        )
    if folder:
        return clips_folder(folder)
    captions, conditionings = wired.get("captions") or [], wired.get("conditioning") or []
    if captions and conditionings:
        raise ValueError("Connect captions or conditioning to Train MagicVideo Adaptor, not both.")
    return WiredClips(**sources, captions=captions, conditionings=conditionings, fps=wired["fps"][0])
