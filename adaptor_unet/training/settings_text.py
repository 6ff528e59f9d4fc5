"""Settings as text: options of a command line, a TOML file, and the table of the guide; each under its own name."""

import argparse
from collections.abc import Container
from pathlib import Path
from typing import Any

from .setting_fields import Setting, settings_of
from .settings import SETTING_GROUPS

METAVAR = {int: "N", float: "X", str: "NAME"}


def add_settings(parser: argparse.ArgumentParser, shown: Container[str] | None = None) -> None:
    """Adds an option for each setting, as ``--learning-rate``; those left out keep what the file or the default says.

    The help shows those named in ``shown``, or all.
    """
    for title, declared in grouped_settings().items():
        group = parser.add_argument_group(title)
        for one in declared:
            add_setting(group, one, shown is None or one.name in shown)


def grouped_settings() -> dict[str, list[Setting]]:
    """The settings of each group, without those that an earlier group has too."""
    seen: set[str] = set()
    found = {}
    for title, kind in SETTING_GROUPS.items():
        found[title] = [one for name, one in settings_of(kind).items() if name not in seen]
        seen |= {one.name for one in found[title]}
    return found


def add_setting(group: argparse._ArgumentGroup, one: Setting, shown: bool = True) -> None:
    """Adds the option of one setting; its help says what it may be and the default, and is hidden unless ``shown``."""
    text = one.help.rstrip(".")
    if one.choices:
        text += f": {', '.join(one.choices)}"
    said = [shown_range(one)] if one.kind in (int, float) else []
    if one.default != "":
        said.append(f"default: {shown_default(one)}")
    if said:
        text += f" ({'; '.join(said)})"
    how: dict[str, Any] = {"dest": one.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if not shown:
        how["help"] = argparse.SUPPRESS
    if one.kind is bool:
        how["action"] = argparse.BooleanOptionalAction
    elif one.kind is tuple:
        how["nargs"] = "+"
    else:
        how |= {"type": one.kind, "metavar": METAVAR[one.kind]}
    group.add_argument(f"--{one.name.replace('_', '-')}", **how)


def shown_default(one: Setting) -> str:
    """The default of a setting as a person writes it."""
    if one.kind is bool:
        return str(one.default).lower()
    return " ".join(one.default) if one.kind is tuple else str(one.default)


def shown_range(one: Setting) -> str:
    """What a value may be, in few words."""
    if one.choices:
        return ", ".join(f"`{word}`" for word in one.choices)
    if one.kind in (int, float):
        return one.bounds + (f", by {one.multiple}" if one.multiple > 1 else "")
    return "`true`, `false`" if one.kind is bool else "text"


def settings_table() -> str:
    """Markdown: every setting with its default, its range and what it is.  It ends with a new line."""
    rows = ["| setting | default | may be | what |", "|---|---|---|---|"]
    for declared in grouped_settings().values():
        for one in declared:
            default = f"`{shown_default(one)}`" if one.default != "" else "none"
            rows.append(f"| `{one.name}` | {default} | {shown_range(one)} | {one.help} |")
    return "\n".join(rows) + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """Settings of a TOML file.  Raises ValueError that names the file."""
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a TOML file of settings: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Settings by name from TOML, flat or in tables of any name.  Raises ValueError."""
    if not text.strip():  # as the node has it where nobody wrote settings, also on a Python without TOML
        return {}
    try:
        import tomllib  # since Python 3.11
    except ImportError as error:
        raise ValueError("settings in TOML need Python 3.11 or newer") from error
    flat: dict[str, Any] = {}
    try:
        tables = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("its arrays or tables lie too deep in one another") from error
    for name, value in tables.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
