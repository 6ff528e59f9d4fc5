"""The folders of adaptors and of motion modules and the files in them, and those that clips may be read from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher

from ..checkpoint import load, save
from ..file_names import why_no_name
from ..motion_lora import load_motion_lora, with_motion_lora
from ..motion_module_file import load_motion_module
from ..whole_file import made_folder, state_of_file, writing
from .hosted import hosted, hosted_motion_module

FOLDER = "magicvideo"
# Under this name the owner of a server lists folders of clips, in extra_model_paths.yaml.
CLIPS = "magicvideo_clips"
# Kinds of files of motion modules and MotionLoRAs as other packs have named them, so that nobody needs to move a file.
# Each has a folder of that name, and a second one of ours.
MOTION_MODULES, MOTION_LORAS = "animatediff_models", "animatediff_motion_lora"
OWN_FOLDERS = {MOTION_MODULES: "magicvideo_motion_modules", MOTION_LORAS: "magicvideo_motion_loras"}
MOTION_SUFFIXES = {".safetensors", ".sft", ".ckpt", ".pth", ".pt", ".bin"}


def register_folder() -> None:
    """Tells the host of the folders; called when the host asks for the nodes.  Extra paths of the user's stay."""
    models = Path(folder_paths.models_dir)
    folder_paths.add_model_folder_path(FOLDER, str(models / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")
    for kind, own in OWN_FOLDERS.items():
        for folder in (kind, own):
            folder_paths.add_model_folder_path(kind, str(models / folder))
        folder_paths.folder_names_and_paths[kind][1].update(MOTION_SUFFIXES)


def adaptor_names() -> list[str]:
    """Adaptor files the host can see, relative to their folder."""
    return folder_paths.get_filename_list(FOLDER)


def load_adaptor(name: str) -> ModelPatcher:
    """The adaptor of that name.  Raises AdaptorFileError when the file is not a sound adaptor."""
    return hosted(load(Path(folder_paths.get_full_path_or_raise(FOLDER, name))))


def file_state(folder: str, name: str | None) -> str:
    """What tells one state of a file in that folder of the host's from another; empty where there is none of that name.

    The host keeps what a node gave for as long as its inputs are the same, and a name stays while training goes on.  It
    tells no name, None, where that comes over a wire: then the states of all files count.
    """
    if name is None:
        return " ".join(file_state(folder, one) for one in folder_paths.get_filename_list(folder))
    path = folder_paths.get_full_path(folder, name)
    return "" if path is None else str(state_of_file(Path(path)))


def motion_module_names() -> list[str]:
    """Motion modules the host can see, relative to their folder."""
    return folder_paths.get_filename_list(MOTION_MODULES)


def motion_lora_names() -> list[str]:
    """MotionLoRAs the host can see, relative to their folder."""
    return folder_paths.get_filename_list(MOTION_LORAS)


def motion_module_from(name: str) -> ModelPatcher:
    """The motion module of that name.  Raises MotionFileError when the file is not a sound one."""
    return motion_module_in(Path(folder_paths.get_full_path_or_raise(MOTION_MODULES, name)))


def motion_module_in(path: Path, loras: Sequence[tuple[Path, float]] = ()) -> ModelPatcher:
    """The motion module in a file, with the MotionLoRAs of other files added, each at its strength.

    Raises MotionFileError when a file is not a sound one, or a MotionLoRA does not fit.
    """
    module = load_motion_module(path, plain_tensors)
    for file, strength in loras:
        module = with_motion_lora(module, load_motion_lora(file, plain_tensors), strength)
    return hosted_motion_module(module)


def with_motion_lora_from(motion_module: ModelPatcher, name: str, strength: float) -> ModelPatcher:
    """The motion module with the MotionLoRA of that name added; the one that came in stays as it is.

    Raises MotionFileError when the file is no sound MotionLoRA or does not fit.
    """
    path = Path(folder_paths.get_full_path_or_raise(MOTION_LORAS, name))
    return with_motion_lora_of(motion_module, path, strength)


def with_motion_lora_of(motion_module: ModelPatcher, path: Path, strength: float) -> ModelPatcher:
    """The motion module with the MotionLoRA in the file at that path added; the one that came in stays as it is.

    Raises MotionFileError when the file is no sound MotionLoRA or does not fit.
    """
    lora = load_motion_lora(path, plain_tensors)
    return hosted_motion_module(with_motion_lora(motion_module.model, lora, strength))


def plain_tensors(path: Path) -> object:
    """What a pickled file holds, read by the host as weights alone: nothing of it is run."""
    return comfy.utils.load_torch_file(str(path), safe_load=True)


def save_adaptor(adaptor: ModelPatcher, prefix: str, metadata: dict[str, str]) -> Path:
    """Writes ``<prefix>_00001.safetensors``, or the next free number, below the first model folder.

    A prefix may be of another system, with ``\\`` between its parts.  Raises ValueError for one that is no name or
    leads out of the folder.
    """
    prefix, root = checked_prefix(prefix), folder_to_write(FOLDER)
    made_folder(root)
    with writing(root / prefix):
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, str(root))
    while True:
        path = Path(folder) / f"{name}_{number:05}.safetensors"
        try:
            return save(adaptor.model, path, metadata)
        except FileExistsError:
            number += 1


def folder_to_write(kind: str) -> Path:
    """The first of the host's folders of a kind that is not another pack's own, which may go with that pack."""
    packs, found = folder_paths.get_folder_paths("custom_nodes"), map(Path, folder_paths.get_folder_paths(kind))
    return next(folder for folder in found if not any(map(folder.is_relative_to, packs)))


def checked_prefix(prefix: str) -> str:
    """The prefix with ``/`` between its parts.  Raises ValueError unless it names a file in the folder or below it."""
    name = prefix.strip().replace("\\", "/")
    for part in name.split("/"):
        wrong = why_no_name(part)
        if wrong:
            raise ValueError(
                f"filename_prefix of Save MagicVideo Adaptor must be a name inside models/{FOLDER}, such as motion or "
                f"my/motion; found {prefix!r:.300}, where the name {part!r:.80} {wrong}."
            )
    return name


def clips_folder(given: str) -> Path:
    """The folder of clips that a graph asks for, below the input folder or one that the owner of the server lists.

    A relative one lies in the input folder.  Whoever may queue a graph could else learn which files the machine has.
    Raises ValueError, before anything is looked at, for any other folder.
    """
    roots = [folder_paths.get_input_directory()]
    if CLIPS in folder_paths.folder_names_and_paths:
        roots += folder_paths.get_folder_paths(CLIPS)
    path = os.path.abspath(os.path.join(roots[0], os.path.expanduser(given)))
    for root in roots:
        # By its name, so that links that the owner placed there are followed; or by where it really is.
        if Path(path).is_relative_to(os.path.abspath(root)):
            return Path(path)
        if "\0" not in path and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            return Path(path)
    raise ValueError(
        f"clips_folder of Train MagicVideo Adaptor is {given!r:.300}; expected a folder below ComfyUI's input folder, "
        f"or below one that is listed as {CLIPS} in extra_model_paths.yaml. Copy the clips there, or list the folder."
    )


@dataclass(frozen=True)
class TrainingFolders:
    """Where training inside a graph writes: finished files where the loaders look, the rest among the outputs."""

    adaptors: Path
    loras: Path
    checkpoints: Path
    runs: Path
    cache: Path
    motion_loras: Path


def training_folders() -> TrainingFolders:
    """These folders of the host, as it is set up now."""
    output = Path(folder_paths.get_output_directory()) / FOLDER
    kinds = (FOLDER, "loras", "checkpoints", MOTION_LORAS)
    adaptors, loras, checkpoints, motion_loras = map(folder_to_write, kinds)
    return TrainingFolders(adaptors, loras, checkpoints, output / "training", output / "cache", motion_loras)
