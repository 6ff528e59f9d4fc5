"""What the inputs of the training node ask for.  Every input is a list, because clips may come as lists."""

from pathlib import Path
from typing import Any

from ...adaptor_unet.training.options import Options, parse_toml
from .wired import WiredClips

# Settings that are inputs of the node itself.
INPUTS = ("steps", "frames", "width", "height", "learning_rate", "base_tuning", "seed")


def options_asked_for(wired: dict[str, list[Any]]) -> Options:
    """The node's own settings and those in its ``settings`` text.  Raises ValueError for what cannot be."""
    text = (wired.get("settings") or [""])[0]
    try:
        others = parse_toml(text)
    except ValueError as error:
        raise ValueError(f"settings of Train MagicVideo Adaptor cannot be read: {error}") from error
    for name in INPUTS:
        if name in others:
            raise ValueError(f"{name} is an input of Train MagicVideo Adaptor itself: set it there, not in settings.")
    if "start" in others:
        raise ValueError("To begin from an adaptor, connect it to Train MagicVideo Adaptor.")
    return Options.from_values({name: wired[name][0] for name in INPUTS} | others)


def clips_asked_for(wired: dict[str, list[Any]]) -> Path | WiredClips:
    """The folder or the connected clips.  Raises ValueError unless there is exactly one source."""
    folder = wired["clips_folder"][0].strip().strip('"')
    sources = {name: wired[name] for name in ("images", "videos", "latents") if wired.get(name)}
    if len(sources) + bool(folder) != 1:
        given = [*(["clips_folder"] if folder else []), *sources]
        raise ValueError(
            "Train MagicVideo Adaptor needs clips from exactly one of clips_folder, images, videos and latents; "
            f"found {', '.join(given) or 'none'}."
        )
    if folder:
        return Path(folder).expanduser()
    captions, conditionings = wired.get("captions") or [], wired.get("conditioning") or []
    if captions and conditionings:
        raise ValueError("Connect captions or conditioning to Train MagicVideo Adaptor, not both.")
    return WiredClips(**sources, captions=captions, conditionings=conditionings, fps=wired["fps"][0])
