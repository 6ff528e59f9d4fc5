"""The workflows of each version, as people have saved them: ``tests/workflows/VERSION``, UI form and server form.

They are never changed. With a new version, a copy of ``workflows/`` as it is released is added.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
VERSIONS = sorted(path for path in FOLDER.iterdir() if path.is_dir())
# Each as a folder and a name: FOLDER/0.1.0, text_to_video.
GRAPHS = [(version, path.stem) for version in VERSIONS for path in sorted(version.glob("*.json"))]


def label(value: Path | str) -> str:
    """What a test's name says of one of these."""
    return value.name if isinstance(value, Path) else value
