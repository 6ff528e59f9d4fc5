"""ComfyUI in this process: which one, and how it gets within reach of ``import comfy``."""

import os
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent


def find_host() -> Path:
    """The folder of ComfyUI: COMFYUI_PATH, or the newest version that bin/setup has fetched.

    Raises ImportError where there is none.
    """
    fetched = [path.parent for path in (PACK / ".hosts").glob("*/main.py")]
    fetched.sort(key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
    path = Path(os.environ.get("COMFYUI_PATH") or (fetched[-1] if fetched else PACK / ".hosts"))
    if not (path / "main.py").is_file():
        raise ImportError(f"no ComfyUI in {path}; run: bash bin/setup, or set COMFYUI_PATH")
    return path.resolve()


def start_host(cpu: bool | None = None, fused_attention: bool = False) -> Path:
    """Puts ComfyUI onto the path, once in a process and before its first import, and returns its folder.

    ``cpu``: whether it is to leave accelerators alone; None for "if there are none".  ``fused_attention``: torch's own
    attention everywhere, which has a fast way back for training; otherwise ComfyUI chooses.  Raises ImportError where
    there is no ComfyUI.
    """
    host = find_host()
    if "comfy.options" in sys.modules:
        return host
    # In front, because other packages of the environment may have modules of the same names.
    sys.path.insert(0, str(host))
    import comfy.options

    # It reads its options when the next line imports them, and nobody has typed any.
    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = not has_accelerator() if cpu is None else cpu
    args.use_pytorch_cross_attention = fused_attention
    # ComfyUI's own order: its ``nodes`` puts another ``utils`` on the path.
    import utils.extra_config  # noqa: F401

    return host


def has_accelerator() -> bool:
    """Whether torch sees a GPU of any kind."""
    import torch

    return torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()
