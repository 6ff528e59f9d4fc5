"""Random motion modules as the host holds them, and the UNets that they fit."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import small_host
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from torch import Tensor

from magicvideo.adaptor_unet.host.hosted import hosted_motion_module
from magicvideo.adaptor_unet.motion_module import MotionModule
from magicvideo.adaptor_unet.motion_module_file import load_motion_module
from magicvideo.tools.make_random_checkpoint import random_motion_module
from magicvideo.tools.motion_module_files import Size

# Of SD1.5's own topology, a tenth as wide.
NARROW = small_host.SD15_BLOCKS | {"model_channels": 32, "num_heads": 8}
# For the small UNet of small_host.
SMALL = Size((64, 64), depth=1)


def plain(path: Path) -> object:
    """Pickled files as the host reads them."""
    return torch.load(path, weights_only=True)


def from_tensors(tensors: dict[str, Tensor]) -> MotionModule:
    """The module that a file of these tensors holds."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "motion.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return load_motion_module(path, plain)


@lru_cache
def drawn(variant: str, size: Size, seed: int) -> MotionModule:
    return from_tensors(random_motion_module(seed, variant, size))


def motion_module(variant: str = "v2", size: Size = SMALL, seed: int = 0) -> ModelPatcher:
    """A random motion module on the wire."""
    return hosted_motion_module(drawn(variant, size, seed))


def narrow_model() -> ModelPatcher:
    return small_host.build_model(**NARROW)
