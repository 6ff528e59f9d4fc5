"""The files of the runs that graphs have begun: where they lie, by which inputs they are known again, the last clip."""

import json
import logging
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..adaptor_unet.host.folders import TrainingFolders
from ..adaptor_unet.training.data.cache_files import contents, read_metadata, read_tensor
from ..adaptor_unet.training.run_identity import MAY_CHANGE
from ..adaptor_unet.training.settings import SETTING_GROUPS, TrainingSettings
from ..adaptor_unet.whole_file import save_tensors, written_whole
from .motion_training import Output

logger = logging.getLogger(__name__)

# Where a run's folder says which run it is.
RUN_FILE = "run.json"
# The last sample clip, which a run that is finished gives again: frames ``f h w 3`` in uint8.  Its metadata tell the
# settings by which it was made.
SAMPLE_FILE, MADE_BY = "sample.safetensors", "magicvideo.sample"
OTHER_COSTS = "%s was begun with other settings of memory or looks, which begin no other run."


def run_files(
    folders: TrainingFolders, name: str, inputs: dict[str, Any], tuning: str, lora: bool = False
) -> tuple[Output, bool]:
    """The files of the run with these inputs, and whether it was begun before.

    A new run gets those of the next free number.  ``inputs``: all that decides what comes out, as JSON has it;
    ``tuning`` says what is trained of the base, ``lora`` whether a MotionLoRA is trained in place of an adaptor.
    """
    name, number = name.strip(), 1
    while True:
        made = f"{name}_{number:05}"
        folder, trained = folders.runs / made, folders.motion_loras if lora else folders.adaptors
        adaptor = trained / f"{made}.safetensors"
        tuned = folders.checkpoints if tuning == "full" else folders.loras
        output = Output(adaptor, tuned / f"{made}_base.safetensors", folder)
        written = (folder, adaptor, *([output.base] if tuning != "frozen" else []))
        if not any(path.exists() for path in written):
            return output, False
        try:
            begun = with_all_settings(json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
            if what_lasts(begun) == what_lasts(inputs):
                if begun != inputs:
                    logger.info(OTHER_COSTS, made)
                return output, True
        except (OSError, ValueError, RecursionError):  # no run of ours, or one that was cut off at its very start
            pass
        number += 1


def with_all_settings(told: Any) -> Any:  # noqa: ANN401 - whatever stands in a file
    """What a run said of itself, with the settings that its version did not have yet: they were as they are by default.

    Anything else is given back as it is.
    """
    if not isinstance(told, dict):
        return told
    groups = {group: kind for group, kind in SETTING_GROUPS.items() if isinstance(told.get(group), dict)}
    return told | {group: json.loads(json.dumps(asdict(kind()))) | told[group] for group, kind in groups.items()}


def what_lasts(told: Any) -> Any:  # noqa: ANN401 - whatever stands in a file
    """What a run said of itself, without the settings that may change; anything else is given back as it is."""
    if not isinstance(told, dict) or not isinstance(told.get("training"), dict):
        return told
    return told | {"training": {name: value for name, value in told["training"].items() if name not in MAY_CHANGE}}


def write_inputs(output: Output, inputs: dict[str, Any]) -> None:
    """Says in a run's folder which inputs it was begun with."""
    with written_whole(output.folder / RUN_FILE) as partial_file:
        partial_file.write_text(json.dumps(inputs), encoding="utf-8")


def sample_settings(settings: TrainingSettings) -> str:
    """What decides how a sample clip is made of a trained adaptor."""
    return json.dumps({"steps": settings.sample_steps, "cfg": settings.sample_cfg})


def last_sample(output: Output, settings: TrainingSettings) -> Tensor | None:
    """f h w 3: the sample clip that a finished run gave.

    None when it is not there, cannot be read or was made by other settings than these.
    """
    if (read_metadata(output.folder / SAMPLE_FILE) or {}).get(MADE_BY) != sample_settings(settings):
        return None
    try:
        frames = read_tensor(output.folder / SAMPLE_FILE, "frames")
    except ValueError:
        return None
    whole = frames.dtype == torch.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and len(frames)
    return frames.float() / 255 if whole else None


def save_sample(output: Output, settings: TrainingSettings, frames: Tensor) -> None:
    """Keeps a run's last sample clip, f h w 3 in 0 to 1, for when it is queued again."""
    sample = {"frames": (frames * 255).round().to(torch.uint8)}
    told = {MADE_BY: sample_settings(settings)}
    save_tensors(output.folder / SAMPLE_FILE, sample, told | contents(sample))
