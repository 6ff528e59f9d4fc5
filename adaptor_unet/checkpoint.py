"""Saving and loading one adaptor: safetensors only, settings in the metadata, nothing guessed, nothing half loaded.

The state of a training run, to go on from, is in ``training/run_state.py``.
"""

import math
import os
import struct
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from .adaptor import AdaptorConfig, VideoAdaptor
from .file_kind import MOTION_MODULE, Wanted, kind_of_keys
from .tensor_file import MOST_HEADER_BYTES, OpenFile, opened_safetensors, read_tensors, start_of
from .whole_file import replaced, save_tensors

FORMAT, VERSION = "adaptor", "1"
# Where a file says at which frame rate its adaptor was trained, and what is taken where it says nothing.
FPS, UNTOLD_FPS = "magicvideo.fps", 8.0
# ModelSpec's names of the families.
ARCHITECTURES = {
    "SD1.5": "stable-diffusion-v1",
    "SD2": "stable-diffusion-v2",
    "SDXL": "stable-diffusion-xl-v1-base",
}


class AdaptorFileError(ValueError):
    """A file that is not a sound adaptor: names the file, what was found, what was expected and what to do."""


ADAPTOR = Wanted(
    "an adaptor", "a MagicVideo adaptor", "Choose a file that Save MagicVideo Adaptor wrote.", AdaptorFileError
)


def save(adaptor: VideoAdaptor, path: Path, metadata: dict[str, str] | None = None, overwrite: bool = False) -> Path:
    """Writes the whole file beside ``path``, then moves it there, so that a failure leaves nothing half written.

    Without ``overwrite`` an existing file raises FileExistsError.  ``metadata`` joins the adaptor's own.  What ``load``
    would not take raises ValueError: values that are not finite, and more metadata than fits.
    """
    if not overwrite and path.exists():
        raise FileExistsError(f"{path} exists already.")
    for name, tensor in adaptor.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"The adaptor is not saved: {name} has values that are not finite numbers, which nothing could use. "
                "Make or train it anew."
            )

    def check(written: Path) -> None:
        length = struct.unpack("<Q", start_of(written)[:8])[0]
        if length > MOST_HEADER_BYTES:
            raise ValueError(
                f"{path.name} would have a header of {length} bytes, and {MOST_HEADER_BYTES} are the most that can be "
                "loaded. Give it less to say of itself: shorten title, author, trigger words or license."
            )

    told = adaptor.metadata | (metadata or {}) | file_metadata(adaptor.config)
    save_tensors(path, adaptor.state_dict(), told, replaced if overwrite else move_to_new, check)
    return path


def move_to_new(written: Path, path: Path) -> None:
    """Moves a file to a path where there is none; raises FileExistsError, and overwrites nothing.

    By a link, which fails when somebody else has made the file meanwhile; a file system without links gets a rename.
    """
    try:
        os.link(written, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(f"{path} exists already.") from None
        os.replace(written, path)


def file_metadata(config: AdaptorConfig) -> dict[str, str]:
    """What every adaptor file says of itself; ``modelspec.*`` after ModelSpec 1.0.1."""
    return {
        "format": "pt",
        "magicvideo.format": FORMAT,
        "magicvideo.version": VERSION,
        "magicvideo.config": config.to_json(),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{ARCHITECTURES.get(config.base, config.base)}/magicvideo-adaptor",
        "modelspec.implementation": "ComfyUI-MagicVideo",
        "modelspec.date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def trained_fps(adaptor: VideoAdaptor) -> float:
    """The frame rate that an adaptor was trained with, as its file says; 8 where it says none, as for a new one.

    Raises ValueError where the file says something that is no frame rate.
    """
    told = adaptor.metadata.get(FPS, f"{UNTOLD_FPS}")
    try:
        rate = float(told)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(
            f"The adaptor's file says that it was trained at {told!r:.40} frames a second; expected a number above 0. "
            "Set fps of Apply MagicVideo."
        )
    return rate


def load(path: Path) -> VideoAdaptor:
    """The adaptor in ``path``, on the CPU, in the file's dtype.

    Raises AdaptorFileError before any tensor is used when the file is damaged, of another kind, of another version, or
    holds other tensors than its settings say.  Allocates no more than the file's size.
    """
    with opened_safetensors(path, ADAPTOR) as file:
        config = read_config(file)
        tensors = read_tensors(file, VideoAdaptor(config, device="meta").state_dict(), ADAPTOR)
    return with_tensors(config, tensors, dict(file.metadata))


def with_tensors(
    config: AdaptorConfig, tensors: dict[str, Tensor], metadata: dict[str, str], operations: type | ModuleType = nn
) -> VideoAdaptor:
    """A frozen adaptor that holds the given tensors themselves, its layers taken from ``operations``."""
    adaptor = VideoAdaptor(config, operations, device="meta")
    adaptor.load_state_dict(tensors, strict=True, assign=True)
    adaptor.metadata = metadata
    return adaptor.requires_grad_(False)


def fp32_copy(adaptor: VideoAdaptor) -> VideoAdaptor:
    """The same adaptor, frozen, with tensors of its own in fp32 on the CPU."""
    tensors = {name: tensor.to("cpu", torch.float32, copy=True) for name, tensor in adaptor.state_dict().items()}
    return with_tensors(adaptor.config, tensors, dict(adaptor.metadata))


def read_config(file: OpenFile) -> AdaptorConfig:
    """The settings in the metadata of an adaptor file.

    Raises AdaptorFileError for a file of another kind, which its tensors' names tell, or of another version, and for
    settings that cannot be read.
    """
    if file.metadata.get("magicvideo.format") != FORMAT:
        kind = kind_of_keys(file.shapes)
        wanted = replace(ADAPTOR, remedy="Use the node Load Motion Module.") if kind == MOTION_MODULE else ADAPTOR
        raise wanted.refusal(file.path, f"seems to be {kind}")
    version = file.metadata.get("magicvideo.version")
    if version != VERSION:
        raise AdaptorFileError(
            f"{file.path.name} has adaptor version {version!r:.20}; this pack reads version {VERSION!r}. "
            "Update the pack."
        )
    try:
        return AdaptorConfig.from_json(file.metadata.get("magicvideo.config", ""))
    except (ValueError, TypeError, RecursionError) as error:
        raise ADAPTOR.refusal(file.path, f"has settings that cannot be read ({error})") from error
