"""AnimateDiff-Evolved as a row of overhead.py: the same public motion module, v2, through that node pack.

The pack is the reader's own clone, in whatever folder.  It is loaded as ComfyUI loads it, into this process.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file

from magicvideo.tools.make_random_checkpoint import random_motion_module

FILE = "random_v2.safetensors"


def animatediff_evolved(folder: Path) -> Callable[[ModelPatcher, torch.dtype], ModelPatcher]:
    """A full-size model with a motion module of random weights, bound by the nodes in ``folder``."""

    def bound(base: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
        node = nodes_of(folder)
        with tempfile.TemporaryDirectory() as models:
            tensors = random_motion_module(0, "v2")
            save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, Path(models) / FILE)
            folder_paths.add_model_folder_path("animatediff_models", models)
            (module,) = node["ADE_LoadAnimateDiffModel"]().load_motion_model(FILE)
        (group,) = node["ADE_ApplyAnimateDiffModelSimple"]().apply_motion_model(module)
        return node["ADE_UseEvolvedSampling"]().use_evolved_sampling(base, "autoselect", m_models=group)[0]

    return bound


def nodes_of(folder: Path) -> dict[str, type]:
    """The pack's nodes, by id."""
    name = "animatediff_evolved"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name].NODE_CLASS_MAPPINGS
