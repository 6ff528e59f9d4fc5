"""ComfyUI-MagicVideo.  Importing this file touches nothing; the host is imported once it asks for the nodes."""

import sys
from pathlib import Path

WEB_DIRECTORY = "./web"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"


async def comfy_entrypoint():  # noqa: ANN201 - the type lives in the host, which is not imported here
    """Called by ComfyUI when it loads the pack.

    Raises ImportError with the command that helps when a Python package is missing.  ComfyUI logs it in one line.
    """
    try:
        from .nodes import MagicVideoExtension
    except ModuleNotFoundError as missing:
        if missing.name is None or sys.modules.get(missing.name.partition(".")[0]):
            raise  # a part of something that is there: pip would not bring it
        raise ImportError(
            f"the Python package of {missing.name!r} is missing. Run this, then start ComfyUI again: "
            f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
        ) from missing
    return MagicVideoExtension()
