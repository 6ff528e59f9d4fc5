"""Which files of a folder are clips, and which caption belongs to each.  Opens no video."""

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .caption_table import TABLES, plain, read_tables
from .picture_door import DAMAGE, is_animated

logger = logging.getLogger(__name__)

VIDEOS = (
    *(".mp4", ".webm", ".mov", ".mkv", ".avi", ".mpeg", ".mpg", ".m4v"),
    *(".ts", ".mts", ".m2ts", ".vob", ".m2v", ".mpe", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".qt"),
)
PICTURES = (".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff")
# Pictures that may hold one frame or many.
ANIMATIONS = (".gif", ".webp", ".png", ".apng", ".avif")
# Which of those are taken for one when they cannot be opened: of the others, a damaged frame must not make stills of
# all frames beside it.
MOSTLY_MOVING = (".gif", ".webp", ".apng")
FOLDER_CAPTION = "caption.txt"
# How the name of a run's own folder ends, which holds its sample clips and plots.
RUN_ENDING = ".run"
NAMED_AT_MOST = 5


class ClipFileError(ValueError):
    """One file that cannot be used: ``path`` names it, ``reason`` says why, and the message says both."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} {reason}.")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class ClipFile:
    """One clip on disk.

    ``kind`` is "video" (whatever PyAV reads), "animation" (an animated WebP, PNG or AVIF), "pictures" (``path`` is a
    folder, its pictures are the frames) or "still".
    """

    path: Path
    caption: str
    kind: str


def find_clips(folder: Path, quietly: bool = False) -> list[ClipFile]:
    """All clips in ``folder`` and the folders below it, in the order of their names, the same on every system.

    A sub-folder that holds two pictures or more, no video and no caption for a single picture is one clip whose
    frames are its pictures.  Any other picture is a still.  A clip's caption is the text file of the same name, so
    that several files of one name share it; else its row in a ``metadata.jsonl`` or ``metadata.csv`` of its folder or
    one above; else the ``caption.txt`` of its folder or of the nearest folder above, up to ``folder``; else empty.
    Hidden files are left out, links are followed, and a folder that was seen already is not entered again.  Nor is one
    whose name ends in ``.run``: the sample clips and plots of a run are not for training.

    What has another ending is passed over, and named in one line of the log unless that is to be ``quietly``.

    Raises ValueError when there is no such folder, no clip in it, a folder or table that cannot be read, or a caption
    that is no text.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise ValueError(f"{folder} is not a folder. Give the folder that holds the clips.")
    search, clips = ClipSearch(folder), []
    try:
        for inner in search.folders(folder):
            clips += search.clips_of(inner)
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be read ({error.strerror or error}).") from error
    if not quietly:
        search.tell(clips)
    if unreadable := search.unreadable:
        names = ", ".join(str(path) for path in unreadable[:NAMED_AT_MOST])
        raise ValueError(f"{len(unreadable)} captions are no UTF-8 text: {names}. Save them as UTF-8.")
    if not clips:
        raise ValueError(
            f"{folder} holds no clips. Expected {', '.join(VIDEOS + ANIMATIONS)} files, pictures or folders of them."
        )
    return clips


@dataclass
class ClipSearch:
    """A look for clips in the folder ``root`` and below it, and what was met on the way.

    ``table`` holds the captions of tables, by the clips that they name; ``texts`` the text files of each folder that
    was entered, by their names; ``unreadable`` captions that are no text; ``passed_over`` files that are no clips by
    their endings; ``runs`` folders of runs, which were not entered; ``seen`` where the entered ones really are.
    """

    root: Path
    table: dict[Path, str] = field(default_factory=dict)
    texts: dict[Path, dict[str, Path]] = field(default_factory=dict)
    unreadable: list[Path] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def folders(self, folder: Path) -> Iterator[Path]:
        """``folder`` and all below it, each real folder once."""
        real = os.path.realpath(folder)
        if real in self.seen:
            return
        self.seen.add(real)
        yield folder
        for path in in_order(folder):
            if path.name.endswith(RUN_ENDING) and path.is_dir():
                self.runs.append(path)
            elif path.is_dir():
                yield from self.folders(path)

    def clips_of(self, folder: Path) -> Iterator[ClipFile]:
        """The clips that lie directly in ``folder``, or the one clip that it is; asked of the folders above before."""
        files = [path for path in in_order(folder) if path.is_file()]
        self.table |= read_tables(folder)
        captions = {same_name(path): path for path in files if path.suffix.lower() == ".txt"}
        self.texts[folder] = captions
        kinds = {path: kind_of(path) for path in files if path.suffix.lower() in (*VIDEOS, *ANIMATIONS, *PICTURES)}
        self.passed_over += [
            path for path in files if path not in kinds and path.suffix.lower() != ".txt" and path.name not in TABLES
        ]
        captioned = any(same_name(path) in captions or plain(path) in self.table for path in kinds)
        if folder != self.root and len(kinds) >= 2 and set(kinds.values()) == {"still"} and not captioned:
            beside = self.texts[folder.parent].get(unicodedata.normalize("NFC", folder.name))
            yield ClipFile(folder, self.caption_of(folder, beside, folder), "pictures")
            return
        for path, kind in kinds.items():
            yield ClipFile(path, self.caption_of(path, captions.get(same_name(path)), folder), kind)

    def caption_of(self, clip: Path, own: Path | None, folder: Path) -> str:
        """A clip's caption: of its ``own`` text file, of a table's row, or of its ``folder``."""
        if own is None and plain(clip) in self.table:
            return self.table[plain(clip)]
        return read_caption(own or folder_caption(folder, self.root), self.unreadable)

    def tell(self, clips: list[ClipFile]) -> None:
        """Says in the log what is of no use to the ``clips`` that were found."""
        if passed := self.passed_over:
            names = ", ".join(path.name for path in passed[:NAMED_AT_MOST])
            more = f" and {len(passed) - NAMED_AT_MOST} more" if len(passed) > NAMED_AT_MOST else ""
            logger.warning("Passed over %d files that are no clips by their endings: %s%s.", len(passed), names, more)
        for run in self.runs:
            logger.info("Left out %s, which holds what a run has made.", run)
        without = sorted(self.table.keys() - {plain(clip.path) for clip in clips})
        if without:
            logger.warning("%d rows of caption tables name no clip, the first is %s.", len(without), without[0])


def kind_of(path: Path) -> str:
    """ "video", "animation" or "still", by the name, and for a GIF or WebP by whether it moves."""
    suffix = path.suffix.lower()
    if suffix not in ANIMATIONS:
        return "video" if suffix in VIDEOS else "still"
    try:
        moves = is_animated(path)
    except DAMAGE:
        # What it is will be said, with the reason, when it is read.
        moves = suffix in MOSTLY_MOVING
    return ("video" if suffix == ".gif" else "animation") if moves else "still"


def in_order(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden; numbers in names count as numbers, so that 10 comes after 9."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=name_order)


def name_order(path: Path) -> tuple:
    """What files are sorted by: numbers in a name as numbers, and the name itself."""
    # Systems store accents and Korean letters composed or apart; both are the same name.
    name = unicodedata.normalize("NFC", path.name)
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), name


def same_name(path: Path) -> str:
    """A file's name without its ending, by which a clip and its caption belong together."""
    return unicodedata.normalize("NFC", path.stem)


def folder_caption(folder: Path, root: Path) -> Path | None:
    """The nearest ``caption.txt`` from ``folder`` up to ``root``."""
    while True:
        if (folder / FOLDER_CAPTION).is_file():
            return folder / FOLDER_CAPTION
        if folder == root:
            return None
        folder = folder.parent


def read_caption(path: Path | None, unreadable: list[Path]) -> str:
    """The text of a caption's file on one line; empty where there is no file.

    A file that is neither UTF-8 nor marked as UTF-16 joins ``unreadable``.
    """
    if path is None:
        return ""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        if path not in unreadable:
            unreadable.append(path)
        return ""
    return " ".join(text.split())


def pictures_in(folder: Path) -> list[Path]:
    """The frames of a folder that is one clip, in their order."""
    return [path for path in in_order(folder) if path.suffix.lower() in (*PICTURES, *ANIMATIONS) and path.is_file()]
