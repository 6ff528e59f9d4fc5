"""What the inputs of the training node ask for: settings, and clips from a folder or from a graph's wires.

Every input is a list, because clips may come as lists.
Axes: f frames, h w of a picture or latent, c channels, n tokens, d text channels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adaptor_unet.host.base_model import check_latents
from ..adaptor_unet.host.caption_tensor import POOLED
from ..adaptor_unet.host.folders import clips_folder
from ..adaptor_unet.host.training_files import HostEncoders
from ..adaptor_unet.training.data.data_settings import DataSettings
from ..adaptor_unet.training.data.framing import draw_framing, frame_size, framed
from ..adaptor_unet.training.data.latent_cache import FRAMES_AT_ONCE
from ..adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, SourceClip, TrainingClips, fault_in
from ..adaptor_unet.training.data.prepare import HELD_OUT_OF, evenly, moving_places, set_apart
from ..adaptor_unet.training.data.shot_cuts import as_video, cuts_of, shots_of
from ..adaptor_unet.training.data.sub_clips import UnfitClipError, draw_within_shots
from ..adaptor_unet.training.data.teacher_clips import read_prompts
from ..adaptor_unet.training.setting_fields import changed
from ..adaptor_unet.training.settings import ALL_SETTINGS, RunSettings
from ..adaptor_unet.training.settings_text import parse_toml
from ..adaptor_unet.training.training_error import enough_memory

# Settings that are inputs of the node itself, by name; those of older graphs lack the last one.
INPUTS = {
    name: ALL_SETTINGS[name]
    for name in ("steps", "frames", "width", "height", "learning_rate", "base_tuning", "seed", "train")
}

# Settings of how pictures are framed.
OF_PICTURES = ("flip", "crop", "bucket_sizes")


@dataclass(frozen=True)
class WiredClips:
    """The clips that are connected to the training node: images, videos or latents, exactly one of the three.

    ``fps`` is the frame rate of images and latents.  ``encoded`` raises ValueError when captions and clips do not
    match.
    """

    images: Sequence[Tensor] = ()
    videos: Sequence[Any] = ()
    latents: Sequence[dict[str, Tensor]] = ()
    captions: Sequence[str] = ()
    conditionings: Sequence[list] = ()
    fps: float = 8.0

    def encoded(
        self,
        data: DataSettings,
        validation_clips: int,
        encoders: HostEncoders,
        progress: Callable[[int, int, str], None],
    ) -> TrainingClips:
        """Sub-clips of all clips, encoded and in memory; up to ``validation_clips`` clips are held out, as of a folder.

        ``progress`` is told how many clips are done, of how many, and what comes next.  Raises ValueError for clips
        that cannot be used, OutOfMemoryError when memory is too short.
        """
        self._check_latents(encoders)
        if self.latents:
            check_unused(data)
        progress(0, len(self), "encoding captions")
        empty = encoders.text("")
        texts = self._texts(data, encoders)
        clips: list[LatentClip] = []
        sources: list[SourceClip] = []
        for place in range(len(self)):
            found = self._encoded(place, texts[place % len(texts)], data, encoders, partial(progress, place, len(self)))
            clips += found
            sources.append(SourceClip(len(found), any(clip.fps for clip in found)))
        moving = moving_places(sources)
        held = [moving[at] for at in evenly(len(moving), min(validation_clips, len(moving) // HELD_OUT_OF))]
        return set_apart(MemoryClips(tuple(clips)), sources, held, validation_clips, empty)

    def _encoded(
        self,
        place: int,
        text: tuple[Tensor, str],
        data: DataSettings,
        encoders: HostEncoders,
        progress: Callable[[str], None],
    ) -> list[LatentClip]:
        """The sub-clips of one clip."""
        (frames, fps), random, found = self._frames(place), Random(f"{data.seed} {place}"), []
        cuts: tuple[int, ...] = ()
        if data.within_shots and data.frames > 1 and len(frames) > 1 and not self.latents:
            cuts = cuts_of(as_video(map(as_bytes, frames)), partial(progress, "looking for cuts"))
        for chosen, rate in sub_clips(len(frames), fps, cuts, data, random, place):
            progress("encoding")
            with enough_memory(f"clip {place + 1} is encoded", "Lower width or height."):
                latents = self._latents(frames[chosen], data, random, encoders)
            check_values(latents, text[0], place)
            found.append(LatentClip(latents, rate, *text))
        return found

    def given(self, data: DataSettings, encoders: HostEncoders) -> Iterator[tuple[str, Tensor]]:
        """All that came over the wires, with names: before it is encoded, which may differ in the last digit."""
        kind = "latents" if self.latents else "videos" if self.videos else "images"
        yield f"{kind} {self.fps} {list(self.captions)}", torch.zeros(0)
        for place in range(len(self)):
            yield from self._named(place)
        for caption in self.captions:
            if named := encoders.beside_words(data.captioned(caption)):
                yield f"embeddings {named}", torch.zeros(0)
        for conditioning in self.conditionings:
            yield "conditioning", conditioning[0][0]
            if (vector := conditioning[0][1].get(POOLED)) is not None:
                yield "pooled", vector

    def __len__(self) -> int:
        return len(self.latents or self.videos or self.images)

    def _frames(self, place: int) -> tuple[Tensor, float]:
        """``f ...`` of one clip, and its rate.  A video is decoded anew each time: whoever asks holds no other one."""
        if self.latents:
            return self.latents[place]["samples"], self.fps
        if self.videos:
            parts = self.videos[place].get_components()
            return parts.images, float(Fraction(parts.frame_rate))
        return self.images[place], self.fps

    def _check_latents(self, encoders: HostEncoders) -> None:
        """Raises ValueError for latents of another kind of model, or of no clip."""
        for place, latent in enumerate(self.latents):
            shape = list(latent["samples"].shape)
            if len(shape) != 4:
                raise ValueError(
                    f"Clip {place + 1} for Train MagicVideo Adaptor is a latent of the shape {shape}; expected four "
                    "numbers, frames, channels, height and width, as VAE Encode makes them of a batch of images."
                )
            check_latents(encoders.model, shape[1], "Train MagicVideo Adaptor")

    def _named(self, place: int) -> Iterator[tuple[str, Tensor]]:
        """One clip frame by frame, because naming a tensor takes its size in memory once more."""
        frames, fps = self._frames(place)
        yield f"clip {fps} {len(frames)}", torch.zeros(0)
        for frame in frames:
            yield "frame", frame.clone()  # a view would hold the whole clip

    def _texts(self, data: DataSettings, encoders: HostEncoders) -> list[tuple[Tensor, str]]:
        """n d and the words, one for all clips or one for each."""
        ready = [(encoders.kept(conditioning), "") for conditioning in self.conditionings]
        prefixed = [data.captioned(caption) for caption in self.captions or [""]]
        texts = ready or [(encoders.text(caption), caption) for caption in prefixed]
        if len(texts) not in (1, len(self)):
            raise ValueError(
                f"There are {len(texts)} captions for {len(self)} clips; give one for all, or one for each."
            )
        return texts

    def _latents(self, frames: Tensor, data: DataSettings, random: Random, encoders: HostEncoders) -> Tensor:
        """f c h w, from latents as they are or from pictures by the autoencoder."""
        if self.latents:
            return encoders.model.model.process_latent_in(frames).float().cpu().clone()
        size = frame_size(frames.shape[2], frames.shape[1], data)
        pictures = torch.stack(list(framed(as_bytes(frames), size, draw_framing(data, random))))
        return torch.cat([encoders.pictures(piece) for piece in pictures.split(FRAMES_AT_ONCE)])


def check_unused(data: DataSettings) -> None:
    """Raises ValueError for settings of pictures that were chosen for latents, with which they can do nothing."""
    for name in changed(data):
        if name in OF_PICTURES:
            raise ValueError(
                f"{name} is of pictures, but latents are connected to Train MagicVideo Adaptor, which are encoded "
                f"already: take {name} out of settings, or connect images or videos."
            )


def as_bytes(frames: Tensor) -> Tensor:
    """... h w c in 0 to 1 -> ... h w 3 in uint8: 1 channel is grey, a fourth says how opaque, on white.

    What lies outside, as behind a bicubic scaling, becomes 0 or 255.
    """
    colours = frames[..., :3].clamp(0, 1)
    if frames.shape[-1] == 4:
        opaque = frames[..., 3:].clamp(0, 1)
        colours = colours * opaque + (1 - opaque)
    return (colours * 255).round().expand(*frames.shape[:-1], 3).to("cpu", torch.uint8)


def check_values(latents: Tensor, text: Tensor, place: int) -> None:
    """Raises ValueError for a clip from whose latents, f c h w, and text, n d, nothing can be learnt."""
    fault = fault_in(latents, text)
    if fault == "not finite":
        raise ValueError(
            f"Clip {place + 1} for Train MagicVideo Adaptor, or its caption, has values that are not finite numbers. "
            "Mend what makes them."
        )
    if fault == "all zeros":
        raise ValueError(
            f"Clip {place + 1} for Train MagicVideo Adaptor is an empty latent, all zeros. Connect an encoded clip."
        )


def sub_clips(
    frames: int, fps: float, cuts: Sequence[int], data: DataSettings, random: Random, place: int
) -> list[tuple[list[int], float]]:
    """Random sub-clips of one clip, none across a cut: which of its frames, and their rate; a single one has rate 0."""
    if frames == 1:
        return [([0], 0.0)]
    times = [index / fps for index in range(frames)]
    found: dict[tuple[float, ...], float] = {}
    try:
        for sub_clip in draw_within_shots(shots_of(times, frames / fps, cuts), data, random):
            found[sub_clip.times] = sub_clip.fps
    except UnfitClipError as error:
        raise ValueError(f"Clip {place + 1} of the batch {error}.") from error
    return [([round(time * fps) for time in times], rate) for times, rate in found.items()]


def refuse_captions(captions: bool, conditioning: bool, folder: bool) -> None:
    """Raises ValueError for captions or conditioning that are connected where no clips are.

    ``folder``: whether there is a folder of clips, which have captions of their own.
    """
    given = " and ".join(["captions"] * captions + ["conditioning"] * conditioning)
    if given:
        theirs = (
            "clips of clips_folder have theirs in text files or tables beside them"
            if folder
            else "a motion module that teaches takes its own from prompts"
        )
        raise ValueError(
            f"{given} of Train MagicVideo Adaptor would say what images, videos or latents show, but {theirs}. "
            "Disconnect that, or connect the clips."
        )


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
    settings = RunSettings.from_values({name: wired[name][0] for name in INPUTS if wired.get(name)} | others)
    brought = changed(settings.adaptor)
    if wired.get("adaptor") and brought and settings.motion_module.train == "adaptor":
        raise ValueError(
            f"The adaptor that is connected to Train MagicVideo Adaptor brings its own {', '.join(brought)}: take that "
            "out of settings, or disconnect the adaptor to train a new one."
        )
    return settings


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

    Raises ValueError unless there is exactly one source, and for captions of clips that have their own.
    """
    folder = wired["clips_folder"][0].strip().strip('"')
    sources = {name: wired[name] for name in ("images", "videos", "latents") if wired.get(name)}
    captions, conditionings = wired.get("captions") or [], wired.get("conditioning") or []
    if not sources and (folder or not needed):
        refuse_captions(any(map(str.strip, captions)), bool(conditionings), bool(folder))
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
    if captions and conditionings:
        raise ValueError("Connect captions or conditioning to Train MagicVideo Adaptor, not both.")
    return WiredClips(**sources, captions=captions, conditionings=conditionings, fps=wired["fps"][0])
