"""What a trainer eats: clips whose pictures and words are encoded already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from statistics import median_low
from typing import Literal, Protocol

from torch import Tensor
from torch.utils.data import ConcatDataset

from ...whole_file import content_name

# A still has no frame rate (0 here); it gets the one that graphs begin with.
STILL_FPS = 8.0
# So many clips tell the rate that is usual.
LOOKED_AT = 64
# Of the autoencoder of SD1.5.
LATENT_CHANNELS = 4
Fault = Literal["not finite", "all zeros"]


@dataclass(frozen=True)
class LatentClip:
    """One clip, or a still of rate 0.

    ``latents`` is ``f c h w``, what the UNet works on; ``text`` the embedding of the caption, ``n d``.
    """

    latents: Tensor
    fps: float
    text: Tensor
    caption: str = ""


def fault_in(latents: Tensor, text: Tensor | None = None) -> Fault | None:
    """Why nothing can be learnt from a clip's values, ``f c h w`` and ``n d``; None when they are sound.

    A value that is not finite, in either, is told before latents that are all zeros.
    """
    if not latents.isfinite().all() or (text is not None and not text.isfinite().all()):
        return "not finite"
    return None if latents.any() else "all zeros"


def sound_clip(latents: Tensor, fps: float, text: Tensor, caption: str) -> LatentClip:
    """A clip that was read from a file.  Raises ValueError unless it is one that can be trained on."""
    if latents.ndim != 4 or not all(latents.shape) or latents.shape[1] != LATENT_CHANNELS:
        raise ValueError(
            f"its latents have the shape {list(latents.shape)}, expected frames of {LATENT_CHANNELS} channels"
        )
    if text.ndim != 2 or not all(text.shape):
        raise ValueError(f"its text has the shape {list(text.shape)}, expected tokens and channels")
    floats = latents.is_floating_point() and text.is_floating_point()
    fault = fault_in(latents, text) if floats else "not finite"
    if fault == "not finite":
        raise ValueError("it holds values that are no finite numbers")
    if fault == "all zeros":
        raise ValueError("its latents are all zeros, from which nothing can be learnt")
    if not 0 <= fps < inf:
        raise ValueError(f"its frame rate is {fps}")
    return LatentClip(latents, float(fps), text, caption)


@dataclass(frozen=True)
class SourceClip:
    """A clip as the user gave it, from which ``items`` items of a set are taken, side by side.  ``moves``: no still."""

    items: int
    moves: bool


class ClipSet(Protocol):
    """Clips by number.  ``groups``: how many clips lie together on disk, group after group."""

    groups: tuple[int, ...]

    @property
    def content(self) -> str:
        """A name for all that a run learns from them, latents, rates and captions: other clips, another name."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> LatentClip: ...


@dataclass(frozen=True)
class TrainingClips:
    """What a run learns from, what it is validated on, and the embedding of the empty caption, ``n d``.

    ``taught``: the last group of ``train`` is what a teacher has sampled.  ``sources``: how many clips the items of
    ``train`` are sub-clips of, 0 where each is a clip of its own.
    """

    train: ClipSet
    held_out: tuple[LatentClip, ...]
    empty_text: Tensor
    taught: bool = False
    sources: int = 0

    @property
    def clip_count(self) -> int:
        """How many clips are learnt from, however many sub-clips are taken from each."""
        return self.sources or len(self.train)

    @property
    def held_out_content(self) -> str:
        """A name for all that sample clips and validation losses are made from."""
        return content_of_clips(self.held_out)

    @property
    def sample_fps(self) -> float:
        """The rate of sample clips, which are made like the first held-out clip."""
        return self.held_out[0].fps or STILL_FPS

    @cached_property
    def usual_fps(self) -> float:
        """The middle one of the rates at which the clips are learnt, stills apart; of a large set, of a part of it.

        Clips are read for it, once.
        """
        count = min(len(self.train), LOOKED_AT)
        rates = [self.train[place * len(self.train) // count].fps for place in range(count)]
        return median_low(filter(None, rates)) if any(rates) else STILL_FPS


class ClipRow(Protocol):
    """Some clips that are read by their place, such as those of one file."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> LatentClip: ...


class JoinedClips:
    """The clips of several rows, one row after the other; nothing is kept in memory."""

    def __init__(self, rows: Sequence[ClipRow]) -> None:
        self._items = ConcatDataset(rows)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int) -> LatentClip:
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)}")
        return self._items[item]


class JoinedSets(JoinedClips):
    """Several ClipSets as one, a set's groups after those of the one before."""

    def __init__(self, sets: Sequence[ClipSet]) -> None:
        super().__init__(sets)
        self.groups = tuple(size for one in sets for size in one.groups)
        self.content = f"joined {' and '.join(one.content for one in sets)}"


@dataclass(frozen=True)
class MemoryClips:
    """A ClipSet of a few clips that are in memory anyway."""

    clips: tuple[LatentClip, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        return (len(self.clips),)

    @property
    def content(self) -> str:
        return content_of_clips(self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int) -> LatentClip:
        return self.clips[item]


def content_of_clips(clips: Sequence[LatentClip]) -> str:
    """The name of clips in memory, of all their values."""

    def parts() -> Iterator[tuple[str, Tensor]]:
        for clip in clips:
            yield f"latents {clip.fps}", clip.latents
            yield f"text {clip.caption}", clip.text

    return content_name(parts())
