"""The base of a training run, from a checkpoint file: each of its parts is loaded when it is needed first."""

import hashlib
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError

import comfy.sd
from comfy.model_patcher import ModelPatcher
from safetensors import SafetensorError

from .train_encode import HostEncoders

# Pieces of the file that its fingerprint reads, and their size: a few hundred megabytes are read in a second.
PIECES, PIECE = 64, 2**20
# What the host's readers raise for a file that is no checkpoint.
UNREADABLE = (RuntimeError, ValueError, KeyError, OSError, SafetensorError, UnpicklingError)


class BaseCheckpoint:
    """An SD1.5 checkpoint.  Raises ValueError when the host cannot load it."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path} is not there; expected a Stable Diffusion 1.5 checkpoint.")
        self.path = path

    @cached_property
    def model(self) -> ModelPatcher:
        """The image model alone."""
        return self._load(clip=False)[0]

    @cached_property
    def encoders(self) -> HostEncoders:
        """Autoencoder and text encoder."""
        _, clip, vae = self._load(clip=True)
        if clip is None or vae is None:
            raise ValueError(f"{self.path.name} holds no {'text encoder' if clip is None else 'autoencoder'}.")
        return HostEncoders(self.model, clip, vae, self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Tells checkpoints apart by size and content."""
        size = self.path.stat().st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        with self.path.open("rb") as file:
            for place in range(PIECES):
                file.seek(max(0, size - PIECE) * place // (PIECES - 1))
                digest.update(file.read(PIECE))
        return digest.hexdigest()

    def _load(self, clip: bool) -> tuple:
        try:
            loaded = comfy.sd.load_checkpoint_guess_config(
                str(self.path), output_vae=clip, output_clip=clip, output_model=not clip
            )
        except UNREADABLE as error:
            raise ValueError(
                f"{self.path.name} cannot be loaded ({error}); expected a Stable Diffusion 1.5 checkpoint."
            ) from error
        return loaded[:3]
