"""ComfyUI in this process: importing this file puts it on the path, so import it before anything of ComfyUI.

COMFYUI_PATH names the installation; without it, the newest one that bin/setup fetched is used.
"""

import os
import sys
from pathlib import Path

import torch

PACK = Path(__file__).resolve().parent.parent
HOST = Path(os.environ.get("COMFYUI_PATH") or PACK / ".hosts" / "0.30.0").resolve()

if not (HOST / "main.py").is_file():
    raise FileNotFoundError(f"no ComfyUI in {HOST}; run: bash bin/setup, or set COMFYUI_PATH")
sys.path.insert(0, str(HOST))
# The host reads its options once, when these two are imported, and nobody has typed any.
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing(False)
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
# The fused attention of torch, which has a fast way back for training.
args.use_pytorch_cross_attention = True
# ComfyUI's own order: its ``nodes`` puts another ``utils`` on the path.
import utils.extra_config  # noqa: E402, F401
