"""Latents and text embeddings on disk, so that the autoencoder and the text encoder run once for each clip.

Axes: f frames, c channels, h height, w width; n tokens, d channels of the text.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Protocol

import av
import PIL
import torch
from torch import Tensor

from ...whole_file import save_tensors
from ..training_error import enough_memory
from .cache_files import (
    ContentHashes,
    contents,
    hash_of,
    holds_text,
    read_json,
    read_rates,
    read_tensor,
    save_json,
)
from .clip_files import ClipFile, ClipFileError
from .data_settings import DataSettings
from .frame_source import FrameSource, content_files, open_clip
from .framing import Framing, draw_framing, frame_size, framed, most_pixels
from .latent_clip import JoinedClips, LatentClip, SourceClip, fault_in, sound_clip
from .shot_cuts import shots_of
from .sub_clips import SubClip, UnfitClipError, draw_within_shots

logger = logging.getLogger(__name__)

# Part of every name in the cache: raise it when the same clip and settings give other latents.
VERSION = "2"
# The file that remembers the contents of clips.
CONTENTS = "contents.json"
# How a caption names a file of an embedding to ComfyUI's text encoder.
EMBEDDING = "embedding:"
# Metadata of a file: what it was made of.
MADE_OF = "magicvideo.made_of"
# Latents scaled for the UNet have a spread of one, far from the ends of float16, which is right to 1/2048 of a value;
# bfloat16 only to 1/256.
STORED = torch.float16
# Bounds the memory that encoding takes.
FRAMES_AT_ONCE = 8
NAMED_AT_MOST = 5
# What to do when memory is too short for that.
LOWER = "Lower width or height, or close what else uses the memory; clips that are encoded stay in the cache."


class Encoders(Protocol):
    """The image model's autoencoder and text encoder."""

    def pictures(self, frames: Tensor) -> Tensor:
        """f h w 3 in 0..1 -> f c h w, scaled for the UNet"""
        ...

    def text(self, caption: str) -> Tensor:
        """The embedding of a caption, n d."""
        ...

    def beside_words(self, caption: str) -> str:
        """A name for what a caption names beside words, such as the content of files; none for words alone."""
        ...


@dataclass(frozen=True)
class CachedClip:
    """A clip in the cache: where the latents of its sub-clips and its text lie, and each sub-clip's frame rate."""

    latents: Path
    fps: tuple[float, ...]
    text: Path
    caption: str

    def __len__(self) -> int:
        return len(self.fps)

    def __getitem__(self, sub_clip: int) -> LatentClip:
        latents, text = read_tensor(self.latents, str(sub_clip)), read_tensor(self.text, "text")
        try:
            return sound_clip(latents, self.fps[sub_clip], text, self.caption)
        except ValueError as error:
            both = f"{self.latents} or {self.text}"
            raise ValueError(f"{both} of the cache is damaged: {error}. Delete them and start again.") from error


class FolderClips(JoinedClips):
    """A ClipSet that keeps nothing in memory: an item, one sub-clip, is read from the cache when it is asked for.

    ``empty_text`` (n d) is the embedding of the empty caption, for training without text now and then.  ``skipped`` are
    the files that could not be used, each with the reason.
    """

    def __init__(
        self, clips: Sequence[CachedClip], empty_text: Tensor, skipped: Sequence[tuple[Path, str]] = ()
    ) -> None:
        self.clips, self.empty_text, self.skipped = tuple(clips), empty_text, tuple(skipped)
        super().__init__(self.clips)
        self.groups = (len(self),)

    @property
    def sources(self) -> tuple[SourceClip, ...]:
        """The clips that the items are sub-clips of, in their order."""
        return tuple(SourceClip(len(clip), any(clip.fps)) for clip in self.clips)

    @property
    def content(self) -> str:
        """A name for all that a run learns from: of captions, and of file names, which say what is in the files."""
        named = [(clip.latents.name, clip.text.name, clip.caption) for clip in self.clips]
        return hash_of(*(part for names in named for part in names))


def build_cache(
    clips: Sequence[ClipFile],
    settings: DataSettings,
    cache_folder: Path,
    fingerprint: str,
    encoders: Callable[[], Encoders],
    progress: Callable[[int, int, str], None],
) -> FolderClips:
    """All clips as training items, from the cache or freshly encoded into it.

    First all pictures are encoded, then all captions, so that a small graphics card holds one encoder at a time.
    ``fingerprint`` stands for the weights of both encoders: other weights, other latents.  ``encoders`` is called
    once, and only when something is missing.  ``progress`` is told how many clips are done, how many there are and what
    comes next: a clip is read, a sub-clip that is missing is encoded, or a caption.  Every
    finished clip stays in the cache when a later one fails or the work is stopped.  With several processes let one
    build; the others then find everything.

    Files that cannot be used are skipped, named in the log and in ``skipped`` of the result.  Raises ValueError when no
    clip is left, or when the autoencoder gives values that are not finite; OutOfMemoryError when memory is too short.
    """
    wanted = [clip for clip in clips if settings.stills or clip.kind != "still"]
    if not wanted:
        raise ValueError(f"There are no clips to train on: {len(clips)} stills, and stills are off.")
    latents = LatentCache(Path(cache_folder), settings, fingerprint, encoders)
    found: list[tuple[Path, tuple[float, ...], str]] = []
    skipped: list[tuple[Path, str]] = []
    try:
        for done, clip in enumerate(wanted):
            progress(done, len(wanted), f"reading {clip.path.name}")
            encoding = partial(progress, done, len(wanted))
            try:
                with enough_memory(f"{clip.path.name} is encoded", LOWER):
                    found.append((*latents.clip(clip, encoding), settings.captioned(clip.caption)))
            except ClipFileError as error:
                logger.warning("Skipped %s: it %s.", clip.path, error.reason)
                skipped.append((clip.path, error.reason))
    finally:
        latents.contents.save()
    if skipped:
        logger.warning("%d of %d clips are skipped.", len(skipped), len(wanted))
    if not found:
        reasons = "; ".join(f"{path.name} {reason}" for path, reason in skipped[:NAMED_AT_MOST])
        more = f"; and {len(skipped) - NAMED_AT_MOST} more" if len(skipped) > NAMED_AT_MOST else ""
        raise ValueError(f"None of the {len(wanted)} clips can be used: {reasons}{more}.")
    texts = {}
    for caption in sorted({"", *(caption for _, _, caption in found)}):
        with enough_memory("captions are encoded", "Close what else uses the memory."):
            texts[caption] = latents.text(caption, lambda: progress(len(wanted), len(wanted), "encoding captions"))
    cached = [CachedClip(path, fps, texts[caption], caption) for path, fps, caption in found]
    return FolderClips(cached, read_tensor(texts[""], "text"), skipped)


class LatentCache:
    """One folder of cached latents, texts and refusals, named by what they were made from."""

    def __init__(
        self, folder: Path, settings: DataSettings, fingerprint: str, encoders: Callable[[], Encoders]
    ) -> None:
        self.folder, self.settings, self.fingerprint = folder, settings, fingerprint
        self.contents = ContentHashes(folder / CONTENTS)
        self._encoders = cache(encoders)

    def clip(self, clip: ClipFile, encoding: Callable[[str], None]) -> tuple[Path, tuple[float, ...]]:
        """The file of a clip's latents, written if need be, and the rate of each sub-clip.  Raises ClipFileError.

        ``encoding`` is told of what is encoded before it is.
        """
        content = self.contents.of(content_files(clip))
        name = hash_of(VERSION, content, clip.kind, self.settings.latents_depend_on(), self.fingerprint)
        path = self.folder / "clips" / f"{name}.safetensors"
        rates = read_rates(path)
        return path, self._filled(clip, content, path, encoding) if rates is None else rates

    def text(self, caption: str, missing: Callable[[], None]) -> Path:
        """The file that holds the embedding of a caption; ``missing`` is called before it is written."""
        parts = [VERSION, caption, self.fingerprint]
        if EMBEDDING in caption and (named := self._encoders().beside_words(caption)):
            parts.append(named)
        path = self.folder / "text" / f"{hash_of(*parts)}.safetensors"
        if not holds_text(path):
            missing()
            text = self._encoders().text(caption)
            if not text.isfinite().all():
                raise ValueError(
                    f"The text encoder gave values for the caption {caption!r:.80} that are not finite. "
                    "Let it work in 32 bits and start again."
                )
            made_of = json.dumps({"version": VERSION, "caption": caption, "encoders": self.fingerprint})
            save_tensors(path, {"text": text}, {MADE_OF: made_of} | contents({"text": text}))
        return path

    def _filled(self, clip: ClipFile, content: str, path: Path, encoding: Callable[[str], None]) -> tuple[float, ...]:
        """Encodes a clip into ``path``, and returns the rate of each sub-clip.

        One that cannot be used, and not only for now, is remembered: the next start needs no encoder.
        """
        # Another version of a reader may read what this one could not.
        readers = hash_of(path.stem, av.__version__, PIL.__version__)
        refused = self.folder / "refused" / f"{readers}.json"
        if reason := read_json(refused).get("reason"):
            raise ClipFileError(clip.path, str(reason))
        try:
            source = open_clip(clip, self.settings.image_fps, most_pixels(self.settings))
            cuts: tuple[int, ...] = ()
            if self.settings.within_shots and self.settings.frames > 1 and clip.kind != "still":
                cuts = source.cuts(partial(encoding, f"looking for cuts in {clip.path.name}"))
            random = Random(f"{self.settings.seed} {content}")
            drawn = framed_sub_clips(clip, shots_of(source.times, source.end, cuts), self.settings, random)
            tensors = {}
            for index, one in enumerate(drawn):
                encoding(f"encoding {clip.path.name}, sub-clip {index + 1} of {len(drawn)}")
                tensors[str(index)] = self._encoded(clip, source, *one)
        except ClipFileError as error:
            if lasts(error) and self.contents.of(content_files(clip)) == content:
                save_json(refused, {"reason": error.reason})
            raise
        if self.contents.of(content_files(clip)) != content:
            raise ClipFileError(clip.path, "was changed while it was encoded; start again to take it")
        rates = tuple(sub_clip.fps for sub_clip, _ in drawn)
        made_of = {"version": VERSION, "content": content, "kind": clip.kind, "encoders": self.fingerprint}
        metadata = contents(tensors) | {
            MADE_OF: json.dumps(made_of | {"settings": json.loads(self.settings.latents_depend_on())}),
            "magicvideo.format": "latents",
            "magicvideo.fps": json.dumps(rates),
        }
        save_tensors(path, tensors, metadata)
        return rates

    def _encoded(self, clip: ClipFile, source: FrameSource, sub_clip: SubClip, framing: Framing) -> Tensor:
        """One sub-clip, f c h w."""
        frames = of_one_size(clip, source.read(sub_clip.times))
        first = next(frames)
        size = frame_size(first.shape[1], first.shape[0], self.settings)
        pictures = framed(chain((first,), frames), size, framing)
        parts = []
        try:
            while chunk := list(islice(pictures, FRAMES_AT_ONCE)):
                parts.append(self._encoders().pictures(torch.stack(chunk)).to("cpu", STORED))
        except UnfitClipError as error:
            raise ClipFileError(clip.path, str(error)) from error
        latents = torch.cat(parts)
        fault = fault_in(latents)
        if fault == "not finite":
            raise ValueError(
                f"The autoencoder gave values for {clip.path.name} that are not finite. "
                "Let it work in 32 bits and start again."
            )
        if fault == "all zeros":
            raise ClipFileError(clip.path, "is empty for the autoencoder, which gave nothing but zeros")
        return latents


def lasts(error: ClipFileError) -> bool:
    """Whether a clip will be refused again: not when the system failed to read it, or had no memory for it."""
    cause = error.__cause__
    # Pillow raises OSErrors of its own for damage, which have no number.
    return not isinstance(cause, MemoryError) and not (isinstance(cause, OSError) and cause.errno)


def framed_sub_clips(
    clip: ClipFile, shots: Sequence[tuple[Sequence[float], float]], settings: DataSettings, random: Random
) -> list[tuple[SubClip, Framing]]:
    """The sub-clips of a clip's shots and how each is framed, none twice: a shot as long as one of them gives one."""
    if clip.kind == "still":
        settings = replace(settings, frames=1)
    found: list[tuple[SubClip, Framing]] = []
    try:
        for sub_clip in draw_within_shots(shots, settings, random):
            drawn = sub_clip, draw_framing(settings, random)
            if drawn not in found:
                found.append(drawn)
    except UnfitClipError as error:
        raise ClipFileError(clip.path, str(error)) from error
    return found


def of_one_size(clip: ClipFile, frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames as they come; raises ClipFileError when their size changes."""
    size = None
    for frame in frames:
        if size not in (None, frame.shape):
            raise ClipFileError(
                clip.path,
                f"has frames of several sizes, {size[1]} x {size[0]} and {frame.shape[1]} x {frame.shape[0]}",
            )
        size = frame.shape
        yield frame
