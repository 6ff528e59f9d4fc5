"""The model folder ``models/magicvideo`` and the files in it."""

from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfy.model_patcher import ModelPatcher

from ..checkpoint import load, save
from .hosted import hosted

FOLDER = "magicvideo"


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
    Path(root).mkdir(parents=True, exist_ok=True)
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
    if not all(part.strip(". ") for part in parts) or Path(prefix).is_absolute() or ":" in prefix:
        raise ValueError(
            f"filename_prefix of Save MagicVideo Adaptor must be a name inside models/{FOLDER}, such as motion or "
            f"my/motion; found {prefix!r}."
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
