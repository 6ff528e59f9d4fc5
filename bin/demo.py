"""What bin/demo answers at once, before it fetches anything: help, wishes that cannot be met, how long it will take.

Exit status: 0 to go on, 2 for what cannot be made, 100 where the answer was all that was asked for.  Only the
standard library is needed.
"""

import os
import sys

from pack import ROOT

from magicvideo.demo.wishes import how_long, parse_arguments, remarks
from magicvideo.demo.world.words import PromptError

ANSWERED = 100


def main() -> int:
    try:
        options = parse_arguments()
        remarks(options)
    except SystemExit as ended:  # argparse has shown its help, or said what is wrong
        return ended.code or ANSWERED
    except PromptError as error:
        print(f"bin/demo: {error}", file=sys.stderr)
        return 2
    fetched = (ROOT / ".venv" / "installed-for").is_file() and (
        "COMFYUI_PATH" in os.environ or any((ROOT / ".hosts").glob("*/main.py"))
    )
    print(how_long(options.frames, fetched), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
