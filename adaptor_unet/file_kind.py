"""What a file seems to be and what it should be, for an error message that helps.  Reads a few bytes, runs nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STARTS = (
    (b"PK\x03\x04", "a pickled PyTorch file (or another zip archive)"),
    (b"\x80", "a pickled PyTorch file"),
    (b"GGUF", "a GGUF model"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<", "a web page"),
    (b"{", "a JSON file"),
    (b"\x89PNG", "a picture"),
)

MOTION_MODULE = "an AnimateDiff motion module"
KEY_PARTS = (
    (MOTION_MODULE, ("motion_modules.", "temporal_transformer.")),
    ("a LoRA", ("lora_down.", "lora_up.", "lora_A.", "lora_B.", "lora_unet_", "lora_te")),
    ("a ControlNet", ("control_model.", "controlnet_", "input_hint_block.")),
    ("a full checkpoint", ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")),
    ("a bare UNet", ("input_blocks.", "down_blocks.")),
    ("an autoencoder", ("decoder.", "encoder.")),
    ("a text embedding", ("emb_params", "clip_l", "string_to_param")),
)


@dataclass(frozen=True)
class Wanted:
    """What a file should be: ``short`` and ``full`` in words, with an article.  ``remedy``: what to do with another.

    ``error`` is the class of the errors.
    """

    short: str
    full: str
    remedy: str
    error: type[ValueError]

    def refusal(self, path: Path, found: str) -> ValueError:
        """The error that names the file, what was found in it, and what to do."""
        return self.error(f"{path.name} {found[:300]}; expected {self.full}. {self.remedy}")

    def check_there(self, path: Path) -> None:
        """Raises the error when there is no such file."""
        if not path.is_file():
            other = self.short.removeprefix("an ").removeprefix("a ")
            raise self.error(f"{path} is not there. Refresh the list of files, or choose another {other}.")


def kind_of_bytes(path: Path) -> str | None:
    """Kind of a file that is not safetensors; None when its first bytes say nothing."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "an empty file"
    return next((kind for magic, kind in STARTS if start.startswith(magic)), None)


def kind_of_keys(keys: Iterable[str]) -> str:
    """Kind of a safetensors file by the names of its tensors."""
    keys = list(keys)
    for kind, parts in KEY_PARTS:
        if any(part in key for key in keys for part in parts):
            return kind
    return f"a safetensors file of an unknown kind with {len(keys)} tensors"
