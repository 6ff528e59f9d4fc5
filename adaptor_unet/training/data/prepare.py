"""From a folder of clips, or shards, to what a run learns from and what is held out of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...whole_file import OutputError, check_writable
from ..step_plan import seed_from
from .clip_files import ClipFile, find_clips
from .data_settings import LATENT_PIXELS, DataSettings
from .frame_source import size_of
from .latent_cache import CONTENTS, Encoders, build_cache
from .latent_clip import ClipSet, LatentClip, TrainingClips
from .shards import ShardClips

logger = logging.getLogger(__name__)

# One clip in so many may be held out.
HELD_OUT_OF = 5
# Pixels to a side of the coarsest features of the image model.
SIZE_STEP = 64


@dataclass(frozen=True)
class Part:
    """The first clips of a set."""

    whole: ClipSet
    groups: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.groups)

    def __getitem__(self, item: int) -> LatentClip:
        return self.whole[item]

    @property
    def content(self) -> str:
        return f"the first {len(self)} of {self.whole.content}"


def clips_of_folder(
    folder: Path,
    data: DataSettings,
    validation_clips: int,
    cache: Path,
    encoders: Callable[[], Encoders],
    fingerprint: str,
    progress: Callable[[int, int, str], None],
) -> TrainingClips:
    """Encodes what is not in the cache yet, and holds out up to ``validation_clips`` clips.

    With too few clips to hold any out, or none that can be used, the validation loss is that of the training clips.
    Raises ValueError when no clip can be used to train on, or nothing can be written into the cache.  ``progress`` as
    for ``build_cache``.
    """
    found = find_clips(folder)
    check_writable(cache / CONTENTS)  # before the encoders are loaded
    held, kept = held_out(found, min(validation_clips, len(found) // HELD_OUT_OF))
    train = build_cache(kept, data, cache, fingerprint, encoders, progress)
    apart = train
    if not held:
        logger.info("too few clips to hold one out: the validation loss is that of the training clips")
    else:
        try:
            apart = build_cache(held, data, cache, fingerprint, encoders, progress)
        except OutputError:
            raise
        except ValueError as error:
            logger.warning("%s They were to be held out: the validation loss is that of the training clips.", error)
    return TrainingClips(train, spread(apart, max(1, validation_clips)), train.empty_text)


def fitting_size(folder: Path, most: int) -> tuple[int, Path | None]:
    """The side of a square, up to ``most`` pixels, to which no clip is enlarged; and the clip that decides, if any.

    Stills decide only where there are no clips.  Raises ValueError when there is no clip.
    """
    found = find_clips(folder, quietly=True)
    moving = [clip for clip in found if clip.kind != "still"] or found
    sides = [(min(size), clip.path) for clip in moving if (size := size_of(clip)) is not None]
    side, path = min(sides, default=(most, folder), key=lambda row: row[0])
    # As a whole number of the model's coarsest cells, where there is room for one.
    fitting = side // SIZE_STEP * SIZE_STEP or max(LATENT_PIXELS, side // LATENT_PIXELS * LATENT_PIXELS)
    return (fitting, path) if fitting < most else (most, None)


def clips_of_shards(folder: Path, validation_clips: int) -> TrainingClips:
    """The last clips of the last shard are held out; of too few none, and the training clips are looked at instead."""
    shards = ShardClips(folder)
    count = min(validation_clips, len(shards) // HELD_OUT_OF, shards.groups[-1])
    if not count:
        return TrainingClips(shards, spread(shards, validation_clips), shards.empty_text)
    groups = tuple(size for size in (*shards.groups[:-1], shards.groups[-1] - count) if size)
    apart = tuple(shards[item] for item in range(len(shards) - count, len(shards)))
    return TrainingClips(Part(shards, groups), apart, shards.empty_text)


def held_out(clips: list[ClipFile], count: int) -> tuple[list[ClipFile], list[ClipFile]]:
    """``count`` clips that chance picks by their names, and the others; the same at every start."""
    picked = sorted(clips, key=lambda clip: seed_from("held out", clip.path.name))[:count]
    return [clip for clip in clips if clip in picked], [clip for clip in clips if clip not in picked]


def spread(clips: ClipSet, count: int) -> tuple[LatentClip, ...]:
    """That many clips, evenly from all."""
    count = min(count, len(clips))
    return tuple(clips[item * len(clips) // count] for item in range(count))
