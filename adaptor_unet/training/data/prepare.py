"""From a folder of clips, or shards, to what a run learns from and what is held out of it."""

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path

from torch import Tensor

from ...whole_file import OutputError, check_writable
from ..step_plan import seed_from
from .cache_files import hash_of
from .clip_files import ClipFile, find_clips
from .data_settings import LATENT_PIXELS, DataSettings
from .frame_source import size_of
from .latent_cache import CONTENTS, Encoders, build_cache
from .latent_clip import LOOKED_AT, ClipSet, LatentClip, SourceClip, TrainingClips
from .shards import ShardClips

logger = logging.getLogger(__name__)

# One clip in so many may be held out.
HELD_OUT_OF = 5
# Pixels to a side of the coarsest features of the image model.
SIZE_STEP = 64
# Settings of clips that encoded clips show.
SEEN = ("frames", "width", "height")
UNTOLD = (
    "%s does not tell which of its items are of one clip, as shards of earlier versions do not: what is held out may "
    "be a part of a clip that is trained on. Shards that are written anew tell it."
)
HELD_OUT = "%d of %d clips are held out, for the validation loss"
TOO_FEW = "too few clips to hold one out: the validation loss is that of the training clips"


@dataclass(frozen=True)
class Part:
    """The clips of a set at the places in ``items``, which ascend, as a ClipSet."""

    whole: ClipSet
    items: tuple[int, ...]

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """How many of the clips lie in each group of the whole set, without groups that have none."""
        ends = list(accumulate(self.whole.groups))
        counted = Counter(bisect_right(ends, item) for item in self.items)
        return tuple(counted[group] for group in sorted(counted))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> LatentClip:
        return self.whole[self.items[item]]

    @property
    def content(self) -> str:
        first = self.items == tuple(range(len(self)))
        which = f"the first {len(self)}" if first else f"{len(self)} ({hash_of(*map(str, self.items))})"
        return f"{which} of {self.whole.content}"


def clips_of_folder(
    folder: Path,
    data: DataSettings,
    validation_clips: int,
    cache: Path,
    encoders: Callable[[], Encoders],
    fingerprint: str,
    progress: Callable[[int, int, str], None],
) -> TrainingClips:
    """What a run learns from a folder of clips, and up to ``validation_clips`` clips held out of it.

    No still is held out.  What is not in the cache yet is encoded.  With too few clips to hold any out, or none that
    can be used, the validation loss is that of the training clips.  ``progress`` as for ``build_cache``.  Raises
    ValueError when no clip can be used to train on, or nothing can be written into the cache.
    """
    found = find_clips(folder)
    check_writable(cache / CONTENTS)  # before the encoders are loaded
    wanted = [clip for clip in found if data.stills or clip.kind != "still"]
    held, kept = held_out(wanted, min(validation_clips, len(moving(wanted)) // HELD_OUT_OF))
    train = build_cache(kept or found, data, cache, fingerprint, encoders, progress)
    apart = train
    if validation_clips and not held:
        logger.info(TOO_FEW)
    elif held:
        logger.info(HELD_OUT, len(held), len(wanted))
        try:
            apart = build_cache(held, data, cache, fingerprint, encoders, progress)
        except OutputError:
            raise
        except ValueError as error:
            logger.warning("%s They were to be held out: the validation loss is that of the training clips.", error)
    shown = looked_at(apart, apart.sources, max(1, validation_clips))
    return TrainingClips(train, shown, train.empty_text, sources=len(train.clips))


def fitting_size(folder: Path, most: int) -> tuple[int, Path | None]:
    """The side of a square, up to ``most`` pixels, to which no clip is enlarged; and the clip that decides, if any.

    Stills decide only where there are no clips, and clips that are smaller than the model's coarsest cells only where
    there are no others.  Raises ValueError when there is no clip.
    """
    found = find_clips(folder, quietly=True)
    sides = [(min(size), clip.path) for clip in moving(found) if (size := size_of(clip)) is not None]
    large = [row for row in sides if row[0] >= SIZE_STEP]
    side, path = min(large or sides, default=(most, folder), key=lambda row: row[0])
    # As a whole number of the model's coarsest cells, where there is room for one.
    fitting = side // SIZE_STEP * SIZE_STEP or max(LATENT_PIXELS, side // LATENT_PIXELS * LATENT_PIXELS)
    return (fitting, path) if fitting < most else (most, None)


def clips_of_shards(folder: Path, validation_clips: int) -> TrainingClips:
    """What a run learns from shards; the last clips that move are held out of it, up to ``validation_clips``.

    Of too few none is held out, and the training clips are looked at instead.  Where the shards do not tell which items
    are sub-clips of one clip, the last items of the last shard are held out.  Raises ValueError when the shards cannot
    be read.
    """
    shards = ShardClips(folder)
    if shards.sources:
        places = moving_places(shards.sources)
        first = len(places) - min(validation_clips, len(places) // HELD_OUT_OF)
        return set_apart(shards, shards.sources, places[first:], validation_clips, shards.empty_text)
    logger.warning(UNTOLD, folder)
    count = min(validation_clips, len(shards) // HELD_OUT_OF, shards.groups[-1])
    if not count:
        return TrainingClips(shards, spread(shards, validation_clips), shards.empty_text)
    first = len(shards) - count
    apart = tuple(shards[item] for item in range(first, len(shards)))
    return TrainingClips(Part(shards, tuple(range(first))), apart, shards.empty_text)


def settings_of_shards(folder: Path, asked: DataSettings, chosen: Collection[str]) -> DataSettings:
    """The settings of clips that were written into shards; of shards that do not tell them, what their clips show.

    Raises ValueError for one that was ``chosen`` otherwise: the clips are encoded already.  The seed is the run's own.
    """
    shards = ShardClips(folder)
    theirs = replace(shards.settings or seen_in(shards), seed=asked.seed)
    for name in sorted(chosen):
        found, wanted = getattr(asked, name), getattr(theirs, name)
        if found != wanted:
            known = f", with {wanted!r}" if shards.settings or name in SEEN else ""
            raise ValueError(
                f"{name} is {found!r}, but the clips in {folder} are encoded already{known}: leave it out, or write "
                "the shards anew with it."
            )
    return theirs


def seen_in(clips: ClipSet) -> DataSettings:
    """The settings of clips as encoded ones show them: frames and size of the first clip that moves."""
    first = (clips[item] for item in range(min(len(clips), LOOKED_AT)))
    frames, _, height, width = next((one for one in first if len(one.latents) > 1), clips[0]).latents.shape
    return DataSettings(frames=frames, width=width * LATENT_PIXELS, height=height * LATENT_PIXELS)


def held_out(clips: list[ClipFile], count: int) -> tuple[list[ClipFile], list[ClipFile]]:
    """``count`` clips that chance picks by their names, no stills, and all other clips; the same at every start."""
    picked = sorted(moving(clips), key=lambda clip: seed_from("held out", clip.path.name))[:count]
    return [clip for clip in clips if clip in picked], [clip for clip in clips if clip not in picked]


def set_apart(
    clips: ClipSet,
    sources: Sequence[SourceClip],
    held: Collection[int],
    validation_clips: int,
    empty_text: Tensor,
) -> TrainingClips:
    """Holds out the source clips at the places ``held``; where there are none, the training clips are looked at."""
    if not held:
        logger.info(TOO_FEW)
        return TrainingClips(clips, looked_at(clips, sources, validation_clips), empty_text, sources=len(sources))
    logger.info(HELD_OUT, len(held), len(sources))
    kept = sorted({*range(len(sources))} - {*held})
    train, apart = (Part(clips, items_of(sources, places)) for places in (kept, held))
    return TrainingClips(train, spread(apart, validation_clips), empty_text, sources=len(kept))


def moving(clips: list[ClipFile]) -> list[ClipFile]:
    """The clips that are no stills; all of them where there are no others."""
    return [clip for clip in clips if clip.kind != "still"] or clips


def looked_at(clips: ClipSet, sources: Sequence[SourceClip], count: int) -> tuple[LatentClip, ...]:
    """``count`` items for validation, evenly from those of clips that move; of all where none does."""
    return spread(Part(clips, items_of(sources, moving_places(sources))), count)


def moving_places(sources: Sequence[SourceClip]) -> list[int]:
    """The places of clips that move; of all where none does."""
    return [place for place, clip in enumerate(sources) if clip.moves] or list(range(len(sources)))


def items_of(sources: Sequence[SourceClip], places: Collection[int]) -> tuple[int, ...]:
    """The items of the clips at those places, in their order."""
    starts = [0, *accumulate(clip.items for clip in sources)]
    return tuple(chain.from_iterable(range(starts[place], starts[place + 1]) for place in sorted(places)))


def spread(clips: ClipSet, count: int) -> tuple[LatentClip, ...]:
    """``count`` clips of a set, evenly from all; all of them where it has fewer."""
    return tuple(clips[item] for item in evenly(len(clips), count))


def evenly(whole: int, count: int) -> list[int]:
    """``count`` numbers below ``whole``, evenly spaced from 0 on; all where there are fewer."""
    count = min(count, whole)
    return [place * whole // count for place in range(count)]
