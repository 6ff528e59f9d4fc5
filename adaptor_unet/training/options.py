"""The trainer's command line and its TOML file: one option for each setting, under the setting's own name."""

import argparse
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from .data_settings import DataSettings
from .new_settings import NewAdaptorSettings
from .settings import TrainingSettings, check_names

GROUPS = {"clips": DataSettings, "adaptor": NewAdaptorSettings, "training": TrainingSettings}
HELP = {
    "frames": "frames of a training clip, F; longer clips can still be made with the adaptor",
    "width": "width of the training frames in pixels",
    "height": "height of the training frames in pixels",
    "bucket_sizes": "keep each clip's own shape at about the same area, instead of one size for all",
    "bucket_step": "sizes of buckets are multiples of this many pixels",
    "crop": "centre or random: which part of a frame that does not fit is kept",
    "flip": "mirror half of the sub-clips; swaps left and right, also for the caption",
    "fps_min": "lowest frame rate of a sub-clip, 0 for no limit",
    "fps_max": "highest frame rate of a sub-clip, 0 for the file's own",
    "image_fps": "frame rate of folders of pictures",
    "draws_per_clip": "random sub-clips taken from each clip",
    "stills": "take pictures beside the clips as clips of one frame",
    "caption_prefix": "put before every caption, for instance a trigger word",
    "seed": "seed of everything that chance decides",
    "rank": "rank of the temporal attention's weights, 0 for full; 64 makes a much smaller file",
    "rotary": "rotary encoding of the frame distance in temporal attention",
    "init": "spatial or random: how temporal attention starts",
    "parts": "parts of the adaptor: some of frame, spatial, temporal, fps",
    "shared_noise": "share of each frame's noise that is the first frame's, here and wherever the adaptor is applied",
    "start": "adaptor file to begin from",
    "steps": "training steps",
    "batch": "clips a step, over all processes",
    "clips_at_once": "clips of a step that are in memory together, on one process",
    "learning_rate": "of attention and fps layers; 0: 1e-4, or 3e-5 for fewer than four clips",
    "adaptor_rate_factor": "how many times faster S and B learn",
    "base_rate": "learning rate of the base, where it is tuned along",
    "weight_decay": "of the attention's weights",
    "warm_up": "steps over which the rate rises; then it falls along a cosine",
    "clip_norm": "gradients are shortened to this length",
    "ema": "decay of the averaged weights, which are the ones saved; 0 saves the last ones",
    "weighting": "none, min_snr or high_noise: which noise levels count more",
    "weighting_cap": "limit of the weighting",
    "high_noise_share": "share of clips whose noise is always high, where layout and motion are decided",
    "frame_noise_levels": "one_a_clip, one_a_frame, clean_context or finished_frames: noise levels of a clip's frames",
    "clean_context_share": "share of clips whose earlier frames are nearly clean, for clean_context",
    "context_timesteps": "nearly clean frames have a timestep below this",
    "caption_dropout": "share of clips shown without caption, so that guidance works",
    "still_share": "share of steps on single frames with the adaptor",
    "base_still_share": "share of steps on single frames without it, to keep a tuned base an image model",
    "base_tuning": "frozen, lora (saved as a LoRA file) or full (saved as a checkpoint)",
    "base_rank": "rank of that LoRA",
    "precision": "auto, fp32 or bf16",
    "checkpointing": "compute activations again instead of keeping them: far less memory",
    "save_every": "steps between saved states",
    "keep": "states that are kept",
    "sample_every": "steps between sample clips, 0 for none",
    "sample_steps": "sampling steps of a sample clip",
    "sample_cfg": "guidance of a sample clip",
    "validate_every": "steps between looks at the validation loss, 0 for none",
    "validation_clips": "clips that are held out for it, where there are enough",
}


@dataclass(frozen=True)
class Options:
    """Everything that one run was asked for."""

    clips: DataSettings
    adaptor: NewAdaptorSettings
    training: TrainingSettings

    @property
    def adaptor_settings(self) -> dict[str, Any]:
        """What a new adaptor is made with."""
        wanted, training = self.adaptor, self.training
        made = {"init": wanted.init, "seed": training.seed, "frames": self.clips.frames}
        return made | {name: getattr(wanted, name) for name in ("rank", "rotary", "parts", "shared_noise")}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "Options":
        """From settings by name; ``frames`` and ``seed`` serve all that have them.  Raises ValueError."""
        known = {group: {field.name for field in fields(kind)} for group, kind in GROUPS.items()}
        check_names(values, set().union(*known.values()))
        return cls(
            **{
                group: kind(**{name: value for name, value in values.items() if name in known[group]})
                for group, kind in GROUPS.items()
            }
        )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each setting, as ``--learning-rate``; those left out keep what the file or the default says."""
    seen = set()
    for title, kind in GROUPS.items():
        group = parser.add_argument_group(title)
        for field in fields(kind):
            if field.name not in seen:
                seen.add(field.name)
                add_setting(group, field)


def add_setting(group: argparse._ArgumentGroup, field: Field) -> None:
    default = field.default if field.default is not MISSING else None
    shown = " ".join(default) if isinstance(default, tuple) else default
    text = f"{HELP[field.name]} (default: {shown})" if shown not in ("", None) else HELP[field.name]
    how: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if isinstance(default, bool):
        how["action"] = argparse.BooleanOptionalAction
    elif isinstance(default, tuple):
        how["nargs"] = "+"
    else:
        how |= {"type": type(default), "metavar": {int: "N", float: "X", str: "NAME"}[type(default)]}
    group.add_argument(f"--{field.name.replace('_', '-')}", **how)


def read_toml(path: Path) -> dict[str, Any]:
    """Settings of a TOML file.  Raises ValueError that names the file."""
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a TOML file of settings: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Settings by name from TOML, flat or in tables of any name.  Raises ValueError."""
    try:
        import tomllib  # since Python 3.11
    except ImportError as error:
        raise ValueError("settings in TOML need Python 3.11 or newer") from error
    flat: dict[str, Any] = {}
    for name, value in tomllib.loads(text).items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
