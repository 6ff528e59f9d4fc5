"""The model folder ``models/magicvideo`` and the files in it, and the folders that clips may be read from."""

import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfy.model_patcher import ModelPatcher

from ..checkpoint import load, save
from ..file_names import why_no_name
from ..whole_file import made_folder, writing
from .hosted import hosted

FOLDER = "magicvideo"
# Under this name the owner of a server lists folders of clips, in extra_model_paths.yaml.
CLIPS = "magicvideo_clips"


def register_folder() -> None:
    """Tells the host of the folder; called when the host asks for the nodes.  Extra paths of the user's stay."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def adaptor_names() -> list[str]:
    """Adaptor files the host can see, relative to their folder."""
    return folder_paths.get_filename_list(FOLDER)


def load_adaptor(name: str) -> ModelPatcher:
    """The adaptor of that name.  Raises AdaptorFileError when the file is not a sound adaptor."""
    return hosted(load(Path(folder_paths.get_full_path_or_raise(FOLDER, name))))


def save_adaptor(adaptor: ModelPatcher, prefix: str, metadata: dict[str, str]) -> Path:
    """Writes ``<prefix>_00001.safetensors``, or the next free number, below the first model folder.

    Raises ValueError for a prefix that is no name or leads out of the folder.
    """
    check_prefix(prefix)
    root = folder_paths.get_folder_paths(FOLDER)[0]
    made_folder(Path(root))
    with writing(Path(root) / prefix.strip()):
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix.strip(), root)
    while True:
        path = Path(folder) / f"{name}_{number:05}.safetensors"
        try:
            return save(adaptor.model, path, metadata)
        except FileExistsError:
            number += 1


def check_prefix(prefix: str) -> None:
    """Raises ValueError unless the prefix names a file in the folder or below it."""
    parts = prefix.strip().replace("\\", "/").split("/")
    for part in parts:
        wrong = why_no_name(part)
        if wrong:
            raise ValueError(
                f"filename_prefix of Save MagicVideo Adaptor must be a name inside models/{FOLDER}, such as motion or "
                f"my/motion; found {prefix!r:.300}, where the name {part!r:.80} {wrong}."
            )


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


def training_folders() -> TrainingFolders:
    """These folders of the host, as it is set up now."""
    output = Path(folder_paths.get_output_directory()) / FOLDER
    first = {kind: Path(folder_paths.get_folder_paths(kind)[0]) for kind in (FOLDER, "loras", "checkpoints")}
    return TrainingFolders(first[FOLDER], first["loras"], first["checkpoints"], output / "training", output / "cache")
