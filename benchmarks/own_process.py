"""A measurement in a process of its own, where nothing that was measured before lies in memory."""

import json
import subprocess
import sys
from typing import Any

from magicvideo.tools.host_in_process import PACK


def measured_apart(script: str, *words: str) -> Any:  # noqa: ANN401 - whatever the script measures
    """What the last line says, as JSON, that a script of this repository prints when it gets these words."""
    command = [sys.executable, str(PACK / "bin" / "run.py"), script, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
