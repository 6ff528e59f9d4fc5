"""Loading public motion modules: told apart by the names of their tensors, renamed, checked, and refused by name.

Three layouts are read: AnimateDiff's own, that of the diffusers library, and checkpoints of training scripts, which
hold a whole UNet beside.  Pickled files are read as plain tensors alone, by the host's weights-only reader.

Axes: l positions, c channels.
"""

import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from .file_kind import Wanted, kind_of_bytes, kind_of_keys
from .motion_module import MotionModule, MotionModuleConfig, with_tensors
from .tensor_file import OpenFile, Shape, opened_safetensors, read_tensors

# Reads a pickled file as plain tensors and runs nothing of it; the host's own, or torch's.
Unpickle = Callable[[Path], object]


class MotionFileError(ValueError):
    """A file that is not what a motion node needs: names the file, what was found, what was expected, what to do."""


MOTION_MODULE = Wanted(
    "a motion module",
    "an AnimateDiff motion module for SD1.5",
    "Choose one such as v3_sd15_mm.ckpt, mm_sd_v15_v2.ckpt or AnimateLCM_sd15_t2v.ckpt.",
    MotionFileError,
)

SITE = re.compile(r"(?:^|\.)((?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.motion_modules\.\d+)\.(.+)$")
DOWN = re.compile(r"down_blocks\.(\d{1,4})\.motion_modules\.(\d{1,4})\.")
POSITIONS = ("pos_encoder.pe", "pos_embed.pe")
# Names in a transformer block of the diffusers library, and AnimateDiff's own.
DIFFUSERS = {
    "attn1.": "attention_blocks.0.",
    "attn2.": "attention_blocks.1.",
    "norm1.": "norms.0.",
    "norm2.": "norms.1.",
    "norm3.": "ff_norm.",
}
BLOCK = "transformer_blocks.0."
# Not tensors of the module: a settings text that one of the older packs writes.
IGNORED = {"animatediff_config"}
# Where a file names no positions: AnimateLCM was trained with 64.
POSITIONS_OF_LCM, POSITIONS_ELSE, POSITIONS_OF_V1 = 64, 32, 24
IMAGE_LORA = "an image LoRA. Put it into models/loras and use the node Load LoRA"

# Files that hold temporal weights and need more than temporal weights.
OTHER_KINDS = (
    (("temporal_attentions.", "pos_encoder.positional_encoding"), "HotshotXL, a motion module for SDXL"),
    (("img_encoder.",), "AnimateLCM-I2V, which needs its image encoder"),
    (("fps_embedding.", "motion_embedding.", "FancyVideo"), "FancyVideo, which needs layers of its own in the UNet"),
    (("controlnet_cond_embedding.",), "SparseCtrl, a ControlNet and no motion module"),
    (("flow_conv_in.",), "Live2Diff, which needs its depth input and its own way of sampling"),
)
PICKLES = ("a pickled PyTorch file (or another zip archive)", "a pickled PyTorch file")
# All that a weights-only reader raises for damaged files, and for those that hold more than tensors.
UNREADABLE = (
    UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    zipfile.BadZipFile,
    struct.error,
    MemoryError,
)


@contextmanager
def opened(path: Path, unpickle: Unpickle, wanted: Wanted) -> Iterator[OpenFile]:
    """The tensors of a safetensors file or of a pickled one.

    Raises the error of ``wanted`` for a file that is damaged or that holds more than tensors.
    """
    wanted.check_there(path)
    try:
        is_pickled = path.suffix.lower() not in (".safetensors", ".sft") and kind_of_bytes(path) in PICKLES
    except OSError as error:
        raise wanted.refusal(path, f"cannot be read ({error})") from error
    if is_pickled:
        tensors = unpickled(path, unpickle, wanted)
        yield OpenFile(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__)
        return
    with opened_safetensors(path, wanted) as file:
        yield file


def unpickled(path: Path, unpickle: Unpickle, wanted: Wanted) -> dict[str, Tensor]:
    """The tensors of a pickled file, by name; the weights of a training checkpoint if it is one."""
    check_archive(path, wanted)
    try:
        found = unpickle(path)
    except UNREADABLE as error:
        told = f"{error}".partition("\n")[0][:120]
        raise wanted.refusal(path, f"cannot be read as plain tensors, and nothing else is read ({told})") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise wanted.refusal(path, f"holds a {type(found).__name__} and no tensors by name")
    kept = {name: value for name, value in found.items() if name not in IGNORED}
    for name, value in kept.items():
        if not isinstance(name, str) or type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided:
            raise wanted.refusal(path, f"holds {str(name)[:80]!r}, which is no plain tensor")
    return {name: value.detach() for name, value in kept.items()}


def check_archive(path: Path, wanted: Wanted) -> None:
    """Refuses pickled files that would unpack to more than their size, and those of before PyTorch 1.6."""
    if not zipfile.is_zipfile(path):
        raise wanted.refusal(path, f"is {kind_of_bytes(path)} that is damaged, or of before PyTorch 1.6")
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [one.filename for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise wanted.refusal(path, f"cannot be read ({error})") from error
    if packed:
        raise wanted.refusal(path, "is a compressed archive, which PyTorch does not write")


def load_motion_module(path: Path, unpickle: Unpickle) -> MotionModule:
    """The motion module in ``path``, on the CPU, in the file's dtype.

    Raises MotionFileError before any tensor is used when the file is damaged, of another kind, or not whole.
    """
    with opened(path, unpickle, MOTION_MODULE) as file:
        refuse_other_kinds(path, file.shapes)
        names = own_names(path, file.shapes)
        config = read_config(path, names, file.shapes)
        theirs = {ours: name for name, ours in names.items() if not ours.endswith(POSITIONS)}
        tensors = read_tensors(file, MotionModule(config, device="meta").state_dict(), MOTION_MODULE, theirs)
    return with_tensors(config, tensors)


def refuse_other_kinds(path: Path, shapes: Mapping[str, Shape]) -> None:
    """Raises MotionFileError for what is no motion module of SD1.5."""
    for parts, kind in OTHER_KINDS:
        if any(part in name for name in shapes for part in parts):
            raise MOTION_MODULE.refusal(path, f"is {kind}")
    if any(name.endswith("conv_in.weight") and shape[1:2] == (9,) for name, shape in shapes.items()):
        raise MOTION_MODULE.refusal(path, "is PIA, which takes a picture through a first convolution of its own")
    if is_lora(shapes):
        if any("motion_modules." in name for name in shapes):
            raise MOTION_MODULE.refusal(path, "is a MotionLoRA. Use the node Load Motion LoRA behind this one")
        raise MOTION_MODULE.refusal(path, f"is {IMAGE_LORA}")
    if any(name.startswith(("frame.", "spatial.", "temporal.")) for name in shapes):
        raise MOTION_MODULE.refusal(path, "seems to be a MagicVideo adaptor. Use the node Load MagicVideo Adaptor")
    if not any(SITE.search(name) for name in shapes):
        raise MOTION_MODULE.refusal(path, f"seems to be {kind_of_keys(shapes)}")


def is_lora(names: Iterable[str]) -> bool:
    """Whether these are names of a LoRA's tensors."""
    return any(
        part in name for name in names for part in ("_lora.", "lora_down", "lora_up", "lora_A", "lora_B", ".lora.")
    )


def own_names(path: Path, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Our name for each of the file's tensors that is the module's: AnimateDiff's without ``temporal_transformer``.

    What a checkpoint of a training script holds beside, a whole UNet, is left out.
    """
    names = {name: found for name in shapes if (found := own_name(name)) is not None}
    rest = [name for name in shapes if name not in names and name not in IGNORED]
    if rest and not any(name.removeprefix("module.") == "conv_in.weight" for name in rest):
        raise MOTION_MODULE.refusal(path, f"has {len(rest)} tensors that belong to no motion module {sorted(rest)[:1]}")
    if len(set(names.values())) != len(names):
        raise MOTION_MODULE.refusal(path, "holds two motion modules")
    return names


def own_name(name: str) -> str | None:
    """Our name of a tensor, whatever the layout; None for what is no part of a motion module."""
    found = SITE.search(name)
    if found is None:
        return None
    site, rest = found[1], found[2].removeprefix("temporal_transformer.")
    if rest.startswith(BLOCK):
        inner = rest.removeprefix(BLOCK)
        for theirs, ours in DIFFUSERS.items():
            if inner.startswith(theirs):
                return f"{site}.{BLOCK}{ours}{inner.removeprefix(theirs)}"
    return f"{site}.{rest}"


def read_config(path: Path, names: Mapping[str, str], shapes: Mapping[str, Shape]) -> MotionModuleConfig:
    """What the names and shapes tell of a module.  Raises MotionFileError for SDXL's and for what fits no UNet."""
    by_name = {ours: shapes[theirs] for theirs, ours in names.items()}
    down = [tuple(map(int, found.groups())) for name in by_name if (found := DOWN.match(name))]
    levels, depth = (1 + max((numbers[i] for numbers in down), default=-1) for i in (0, 1))
    if levels == 3:
        raise MOTION_MODULE.refusal(path, "is a motion module for SDXL")
    mid = any(name.startswith("mid_block.") for name in by_name)
    lengths = {shape[1:2] for name, shape in by_name.items() if name.endswith(POSITIONS)}
    if len(lengths) > 1 or () in lengths:
        raise MOTION_MODULE.refusal(path, f"has position encodings of different lengths {sorted(lengths)}")
    length = lengths.pop()[0] if lengths else None
    widths = [by_name.get(f"down_blocks.{level}.motion_modules.0.norm.weight", ()) for level in range(min(levels, 99))]
    try:
        return MotionModuleConfig(
            kind=kind_of(mid, length, path.name),
            widths=tuple(width[0] if len(width) == 1 else 0 for width in widths),
            depth=depth,
            mid=mid,
            positions=length or (POSITIONS_OF_LCM if mid else POSITIONS_ELSE),
        )
    except ValueError as error:
        raise MOTION_MODULE.refusal(path, f"fits no UNet ({error})") from error


def kind_of(mid: bool, length: int | None, file_name: str) -> str:
    """The kind of a module by whether it has a middle block and by the length of its position encoding, if any.

    AnimateLCM is v2 without one; as the diffusers library writes it, with one, it can be told by the file's name alone.
    """
    if mid:
        return "AnimateDiff v2" if length and "lcm" not in file_name.lower() else "AnimateLCM"
    return "AnimateDiff v1" if length == POSITIONS_OF_V1 else "AnimateDiff v3"
