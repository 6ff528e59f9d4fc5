"""Which files of a folder are clips, and which caption belongs to each.  Opens no video."""

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
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
    Hidden files are left out, links are followed, and a folder that was seen already is not entered again.

    What has another ending is passed over, and named in one line of the log unless that is to be ``quietly``.

    Raises ValueError when there is no such folder, no clip in it, a folder or table that cannot be read, or a caption
    that is no text.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise ValueError(f"{folder} is not a folder. Give the folder that holds the clips.")
    unreadable: list[Path] = []
    passed_over: list[Path] = []
    table: dict[Path, str] = {}
    clips: list[ClipFile] = []
    try:
        for inner in folders(folder, set()):
            table |= read_tables(inner)
            clips += clips_of(inner, folder, table, unreadable, passed_over)
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be read ({error.strerror or error}).") from error
    if passed_over and not quietly:
        names = ", ".join(path.name for path in passed_over[:NAMED_AT_MOST])
        more = f" and {len(passed_over) - NAMED_AT_MOST} more" if len(passed_over) > NAMED_AT_MOST else ""
        logger.warning("Passed over %d files that are no clips by their endings: %s%s.", len(passed_over), names, more)
    without = sorted(table.keys() - {plain(clip.path) for clip in clips})
    if without and not quietly:
        logger.warning("%d rows of caption tables name no clip, the first is %s.", len(without), without[0])
    if unreadable:
        names = ", ".join(str(path) for path in unreadable[:NAMED_AT_MOST])
        raise ValueError(f"{len(unreadable)} captions are no UTF-8 text: {names}. Save them as UTF-8.")
    if not clips:
        raise ValueError(
            f"{folder} holds no clips. Expected {', '.join(VIDEOS + ANIMATIONS)} files, pictures or folders of them."
        )
    return clips


def folders(folder: Path, seen: set[str]) -> Iterator[Path]:
    """``folder`` and all below it, each real folder once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    yield folder
    for path in in_order(folder):
        if path.is_dir():
            yield from folders(path, seen)


def clips_of(
    folder: Path, root: Path, table: dict[Path, str], unreadable: list[Path], passed_over: list[Path]
) -> Iterator[ClipFile]:
    """The clips that lie directly in ``folder``, or the one clip that it is; other files join ``passed_over``."""
    files = [path for path in in_order(folder) if path.is_file()]
    captions = {same_name(path): path for path in files if path.suffix.lower() == ".txt"}
    kinds = {path: kind_of(path) for path in files if path.suffix.lower() in (*VIDEOS, *ANIMATIONS, *PICTURES)}
    passed_over += [
        path for path in files if path not in kinds and path.suffix.lower() != ".txt" and path.name not in TABLES
    ]
    captioned = any(same_name(path) in captions or plain(path) in table for path in kinds)
    if folder != root and len(kinds) >= 2 and set(kinds.values()) == {"still"} and not captioned:
        text = caption_of(folder, caption_beside(folder), table, folder_caption(folder, root), unreadable)
        yield ClipFile(folder, text, "pictures")
        return
    for path, kind in kinds.items():
        text = caption_of(path, captions.get(same_name(path)), table, folder_caption(folder, root), unreadable)
        yield ClipFile(path, text, kind)


def caption_of(
    clip: Path, own: Path | None, table: dict[Path, str], of_folder: Path | None, unreadable: list[Path]
) -> str:
    """A clip's caption: of its own text file, of a table's row, or of its folder."""
    if own is None and plain(clip) in table:
        return table[plain(clip)]
    return read_caption(own or of_folder, unreadable)


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


def caption_beside(folder: Path) -> Path | None:
    """The text file that has a folder's name and lies beside it."""
    name = unicodedata.normalize("NFC", folder.name)
    texts = (path for path in in_order(folder.parent) if path.suffix.lower() == ".txt")
    return next((path for path in texts if same_name(path) == name), None)


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
