"""Captions of many clips in one table, as other trainers take them: ``metadata.jsonl`` or ``metadata.csv``."""

import csv
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

TABLES = ("metadata.jsonl", "metadata.csv")
# What the columns are called; the first one of each that a row has counts.
FILE_COLUMNS, TEXT_COLUMNS = ("file_name", "video_path", "video", "path"), ("text", "caption", "prompt")


def read_tables(folder: Path) -> dict[Path, str]:
    """Captions by the path of their clip, from the tables that lie in a folder; paths in a table begin there.

    Raises ValueError that names file and line for a table that cannot be read or a row without file or text.
    """
    found: dict[Path, str] = {}
    for name in TABLES:
        path = folder / name
        if path.is_file():
            for line, row in rows_of(path):
                file, text = (column(row, names) for names in (FILE_COLUMNS, TEXT_COLUMNS))
                if file is None or text is None:
                    missing, names = ("file", FILE_COLUMNS) if file is None else ("caption", TEXT_COLUMNS)
                    raise ValueError(f"{path}, line {line}, has no {missing}: expected one of {', '.join(names)}.")
                found[plain(folder / file)] = " ".join(text.split())
    return found


def rows_of(path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of a table with the number of their line.  Raises ValueError that names the file when it is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file)
                yield from ((reader.line_num, row) for row in reader)
                return
            number = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    yield number, row if isinstance(row, dict) else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}, is no JSON: {error}") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of captions: {error}") from error


def column(row: dict, names: tuple[str, ...]) -> str | None:
    """The first of some columns that a row has."""
    return next((row[name] for name in names if isinstance(row.get(name), str)), None)


def plain(path: Path) -> Path:
    """One form of a path: systems store accents and Korean letters composed or apart."""
    return Path(unicodedata.normalize("NFC", str(path)))
