"""The files of this repository, without what is made in its folder."""

import re
from pathlib import Path

from pack import ROOT


def shipped_files(ending: str = "") -> list[Path]:
    """All files with this ending, relative to the repository; not what .gitignore names, and nothing of git's own."""
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    made = {line.strip("/") for line in patterns if line and not line.startswith("#")} | {".git"}

    def walk(folder: Path) -> list[Path]:
        found = []
        for path in sorted(folder.iterdir()):
            if any(path.match(name) for name in made):
                continue
            found += walk(path) if path.is_dir() else [path.relative_to(ROOT)]
        return found

    return [path for path in walk(ROOT) if path.name.endswith(ending)]


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def bash_commands(text: str) -> list[str]:
    """The commands in the ``bash`` blocks of a page, each on one line, without remarks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [command for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line).strip())]
