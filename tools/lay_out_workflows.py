"""Lays out workflow files anew: nodes in columns, group by group, so that a template opens at a scale that can be read.

    bash bin/run tools/lay_out_workflows.py [workflows/NAME.json ...]

Without names, all of the pack's. A node stays in its group, groups follow their numbers, and in a group nodes keep
their order, column after column: so put a node roughly where it belongs and run this. A title of more than 31 letters
makes its column wider, and the page smaller.
"""

import argparse
import json
from pathlib import Path

from magicvideo.tools.host_server import PACK
from magicvideo.tools.page_layout import lay_out, opening_scale


def laid_out(path: Path) -> str:
    """The text of the file with all in its place."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    lay_out(graph)
    return json.dumps(graph, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Lays out workflow files anew.")
    parser.add_argument("files", nargs="*", type=Path, help="default: all of workflows/")
    for path in parser.parse_args().files or sorted((PACK / "workflows").glob("*.json")):
        text = laid_out(path)
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: opens at {opening_scale(json.loads(text)['nodes']):.2f}")


if __name__ == "__main__":
    main()
