"""Training items in WebDataset shards: tar files of some hundred items each, for sets that one disk cannot hold.

A shard is a plain tar file with two members an item, ``KEY.safetensors`` (latents and text) and ``KEY.json`` (frame
rate, caption and a name for the tensors' values), so any reader of WebDataset reads it.  ``index.json`` names the
shards and how many items each has, in the form that the wids reader introduced; it also says which items are sub-clips
of one clip, and the settings of clips.  Reading needs neither library: an item is found by its place in the tar file.
"""

import io
import json
import os
import tarfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ...whole_file import (
    check_content,
    check_writable,
    content_name,
    made_folder,
    read_hash,
    save_tensors,
    written_whole,
)
from .cache_files import CONTENT, contents, hash_of, save_json
from .data_settings import DataSettings
from .latent_clip import ClipSet, JoinedClips, LatentClip, SourceClip, sound_clip

INDEX, EMPTY_TEXT = "index.json", "empty_text.safetensors"
# A place takes some dozen bytes; items are read shard after shard, so that a few tables serve.
TABLES_KEPT = 8
# Two members, each a header and at least one block.
LEAST_ITEM_BYTES = 4 * tarfile.BLOCKSIZE


def write_shards(
    clips: ClipSet,
    folder: Path,
    empty_text: Tensor,
    items_per_shard: int = 256,
    sources: Sequence[SourceClip] = (),
    settings: DataSettings | None = None,
) -> Path:
    """Writes all items in their order and returns the path of the index, which is written last.

    ``sources``: the clips that the items are sub-clips of; ``settings``: with which those were taken.

    Raises ValueError when there are no items, or the folder holds shards already.
    """
    folder = Path(folder)
    if items_per_shard < 1 or not len(clips):
        raise ValueError(f"{len(clips)} items in shards of {items_per_shard}; expected at least one of each.")
    check_new(folder)
    shards = []
    for start in range(0, len(clips), items_per_shard):
        places = range(start, min(start + items_per_shard, len(clips)))
        name = f"clips-{len(shards):06d}.tar"
        with written_whole(folder / name) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for place in places:
                clip = clips[place]
                tensors = {"latents": clip.latents.contiguous(), "text": clip.text.contiguous()}
                content = content_name(sorted(tensors.items()))
                told = json.dumps({"fps": clip.fps, "caption": clip.caption, "content": content})
                add_member(tar, f"{place:09d}.safetensors", save(tensors))
                add_member(tar, f"{place:09d}.json", told.encode())
        row = {"url": name, "nsamples": len(places), "content": read_hash(folder / name)}
        shards.append(row | ({"clips": clips_within(sources, places)} if sources else {}))
    save_tensors(folder / EMPTY_TEXT, {"text": empty_text}, contents({"text": empty_text}))
    told = {"settings": asdict(settings)} if settings else {}
    save_json(folder / INDEX, {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards} | told)
    return folder / INDEX


def clips_within(sources: Sequence[SourceClip], items: range) -> list[tuple[int, int, bool]]:
    """The clips of items that lie side by side: the place of each, how many of the items are its, and ``moves``."""
    ends = list(accumulate(clip.items for clip in sources))
    counted = Counter(bisect_right(ends, item) for item in items)
    return [(place, counted[place], sources[place].moves) for place in sorted(counted)]


def check_new(folder: Path) -> None:
    """Raises ValueError when shards cannot be written to the folder, or it holds some already."""
    if (made_folder(folder) / INDEX).exists():
        raise ValueError(f"{folder} holds shards already. Choose another folder.")
    check_writable(folder / INDEX)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file of that name and content to an open tar file."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


# What readers raise for an item or a tar file that is damaged, or was made to do damage.
UNREADABLE = (
    OSError,
    SafetensorError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
    tarfile.TarError,
)


@dataclass(frozen=True)
class Place:
    """Where the two members of one item lie in a tar file: for each the first byte and how many there are."""

    tensors: tuple[int, int]
    told: tuple[int, int]


@dataclass(frozen=True)
class Shard:
    """The items of one tar file; ``places`` gives where they lie in it, by its path and how many they are."""

    path: Path
    items: int
    text_channels: int
    places: Callable[[Path, int], list[Place]]

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, item: int) -> LatentClip:
        place = self.places(self.path, self.items)[item]
        try:
            with torch.inference_mode(False), self.path.open("rb") as file:
                tensors, told = load(read_part(file, *place.tensors)), json.loads(read_part(file, *place.told))
            check_content(told.get("content"), tensors)
            clip = sound_clip(tensors["latents"], float(told["fps"]), tensors["text"], str(told["caption"]))
            if clip.text.shape[1] != self.text_channels:
                raise ValueError(f"its text has {clip.text.shape[1]} channels, the index's {self.text_channels}")
            return clip
        except UNREADABLE as error:
            raise ValueError(f"Item {item} in {self.path} cannot be read ({error!r}).") from error


class ShardClips(JoinedClips):
    """A ClipSet over shards; ``groups`` are the items of each shard, ``content`` is what the index says of theirs.

    ``sources`` are the clips that the items are sub-clips of, ``settings`` those of clips; an index of an earlier
    version, or of other tools, tells neither: they are empty and None then.

    Takes the index, or its folder.  The index may name shards on other disks by their full paths.  Raises ValueError
    when the index or a shard is missing, damaged or of another kind.
    """

    def __init__(self, index: Path) -> None:
        index = Path(index)
        index = index / INDEX if os.path.isdir(index) else index
        told, paths, self.groups = read_index(index)
        rows = told["shardlist"]
        self.empty_text = read_empty_text(index.parent / EMPTY_TEXT)
        self.tables = lru_cache(TABLES_KEPT)(read_table)
        channels = self.empty_text.shape[1]
        super().__init__([Shard(*shard, channels, self.tables) for shard in zip(paths, self.groups, strict=True)])
        self.sources, self.settings = read_sources(index, rows), read_settings(index, told)
        # An index of other tools may not tell contents; all shards would have to be read for them.
        contents = [str(row.get("content") or path.stat().st_size) for row, path in zip(rows, paths, strict=True)]
        self.content = hash_of(*contents, *map(str, self.groups))


def read_empty_text(path: Path) -> Tensor:
    """The embedding of the empty caption, n d.  Raises ValueError when its file is missing or damaged."""
    try:
        with torch.inference_mode(False), safe_open(path, framework="pt") as file:
            text, told = file.get_tensor("text"), file.metadata() or {}
        check_content(told.get(f"{CONTENT}text"), {"text": text})
        if text.ndim != 2 or not text.isfinite().all():
            raise ValueError(f"its text has the shape {list(text.shape)}, or values that are no finite numbers")
        return text
    except UNREADABLE as error:
        raise ValueError(f"{path} is damaged ({error!r}). Write the shards anew.") from error


def read_index(index: Path) -> tuple[dict[str, Any], tuple[Path, ...], tuple[int, ...]]:
    """All that an index tells, the shards' paths and how many items each has.

    Raises ValueError when the index is damaged or of another kind, or a shard is missing or too small.
    """
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        rows = told["shardlist"]
        shards = tuple(index.parent / str(row["url"]) for row in rows)
        groups = tuple(row["nsamples"] for row in rows)
    except UNREADABLE as error:
        raise ValueError(
            f"{index} is no index of shards ({error!r}). Give the folder that they were written to."
        ) from error
    missing = [shard for shard in shards if not os.path.isfile(shard)]
    if missing:
        raise ValueError(f"{len(missing)} of {len(shards)} shards of {index} are missing, the first is {missing[0]}.")
    if not groups or not all(type(count) is int and count >= 1 for count in groups):
        raise ValueError(f"{index} names a shard without items, or none at all.")
    for shard, count in zip(shards, groups, strict=True):
        if count * LEAST_ITEM_BYTES > shard.stat().st_size:
            raise ValueError(
                f"{shard} is damaged or holds something else than clips: {index.name} says that there are {count:.3g}, "
                "which find no room in it."
            )
    return told, shards, groups


def read_sources(index: Path, rows: list[dict[str, Any]]) -> tuple[SourceClip, ...]:
    """The clips that the items are sub-clips of, of which one may lie in two shards; none where a row does not tell.

    Raises ValueError when the index is damaged.
    """
    if not all("clips" in row for row in rows):
        return ()
    found: list[tuple[int, int, bool]] = []
    try:
        for row in rows:
            if sum(items for _, items, _ in row["clips"]) != row["nsamples"]:
                raise ValueError(f"clips of {row['url']} are not those of its {row['nsamples']} items")
            for first, (place, items, moves) in enumerate(row["clips"]):
                if type(items) is not int or items < 1:
                    raise ValueError(f"a clip of {row['url']} has {items!r:.80} items")
                goes_on = first == 0 and found and found[-1][0] == place
                before = found.pop()[1] if goes_on else 0
                found.append((place, before + items, bool(moves)))
    except UNREADABLE as error:
        raise ValueError(f"{index} is damaged ({error!r}). Write the shards anew.") from error
    return tuple(SourceClip(items, moves) for _, items, moves in found)


def read_settings(index: Path, told: dict[str, Any]) -> DataSettings | None:
    """The settings of clips with which shards were written; None where the index does not tell them.

    Raises ValueError for settings that cannot be.
    """
    try:
        return DataSettings(**told["settings"]) if "settings" in told else None
    except UNREADABLE as error:
        raise ValueError(
            f"{index} tells settings of clips that cannot be ({error!r}). Write the shards anew."
        ) from error


def read_table(shard: Path, items: int) -> list[Place]:
    """The places of the items of a shard, from the headers of its members alone.

    Raises ValueError when it is damaged, or holds another number of items.
    """
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                # WebDataset: what comes before the first dot of the name is the item, the rest is which part of it.
                key, _, part = member.name.partition(".")
                if member.isfile():
                    if member.issparse() or member.offset_data + member.size > size:
                        raise ValueError(f"{member.name:.80} says that it has {member.size} bytes")
                    found.setdefault(key, {})[part.lower()] = member.offset_data, member.size
        table = [Place(parts["safetensors"], parts["json"]) for parts in found.values()]
    except UNREADABLE as error:
        raise ValueError(f"{shard} is damaged or holds something else than clips ({error!r}).") from error
    if len(table) != items:
        raise ValueError(f"{shard} holds {len(table)} clips, the index says {items}. Is it cut short?")
    return table


def read_part(file: io.BufferedReader, start: int, length: int) -> bytes:
    """``length`` bytes of an open file from the place ``start`` on."""
    file.seek(start)
    return file.read(length)
