"""Writes the table of docs/settings.md anew, from what is declared of each setting.

    bash bin/run tools/settings_page.py

What stands above the table stays as it is.
"""

import argparse
from pathlib import Path

from magicvideo.adaptor_unet.training.settings_text import settings_table
from magicvideo.tools.host_server import PACK

PAGE = PACK / "docs" / "settings.md"


def write_table(page: Path) -> None:
    """Puts the table in place of all from the page's first table on.  Raises ValueError for a page without one."""
    above, bar, _ = page.read_text(encoding="utf-8").partition("\n|")
    if not bar:
        raise ValueError(f"{page} has no table; expected one below its words")
    page.write_text(f"{above}\n{settings_table()}", encoding="utf-8")


def main() -> None:
    argparse.ArgumentParser(description="Writes the table of docs/settings.md anew.").parse_args()
    write_table(PAGE)


if __name__ == "__main__":
    main()
