"""A clip that cannot be used, by its name."""

from pathlib import Path


class ClipFileError(ValueError):
    """One file that cannot be used: ``path`` names it, ``reason`` says why, and the message says both."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} {reason}.")
        self.path, self.reason = path, reason
