"""Pads the weights of the narrow image network, or of an adaptor for it, with zeros to twice the width.

    bash bin/run demo/model/padding.py narrow.safetensors models/magicvideo/demo.safetensors

makes of an adaptor file that was trained on the narrow image network one for the demo's checkpoint. Everything else
that the file says of itself stays.

The wide network computes what the narrow one did (see narrow_layers.py), and every new channel stays zero. Inputs and
outputs that consist of several parts are padded part by part: the two halves behind a skip connection, value and gate
of the GEGLU, cosines and sines of the timestep.

Axes: o output channels, i input channels; a bias has o alone, an adaptor's S and B have frames in place of o.
"""

import argparse
import json
import re
from pathlib import Path

import torch
from einops import rearrange
from safetensors import safe_open
from torch import Tensor

from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.narrow_layers import HEAD_CHANNELS, WIDENING

SETTINGS = "magicvideo.config"  # of an adaptor, in its file's metadata
# What the network meets at its ends stays as wide as it is: latents and text.
TEXT_INPUT = re.compile(r"attn2\.to_[kv]\.weight")
LATENT_INPUT = re.compile(r"input_blocks\.0\.0\.weight")
LATENT_OUTPUT = re.compile(r"out\.2\.(weight|bias)")
# Inputs of two parts: what comes up and what comes over the skip connection.
JOINED_INPUT = re.compile(
    r"output_blocks\.\d+\.0\.(in_layers\.0\.(weight|bias)|in_layers\.2\.weight|skip_connection\.weight)"
)
GATED_OUTPUT = re.compile(r".*\.ff\.net\.0\.proj\.(weight|bias)")
SINUSOID_INPUT = re.compile(r"time_embed\.0\.weight|fps\.inner\.weight")
SCALE = re.compile(r"(frame|spatial)\..*\.scale")


def padded_unet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the image network by the names of its own layers, narrow to wide."""
    return {name: _padded_unet_weight(name, weight) for name, weight in weights.items()}


def _padded_unet_weight(name: str, weight: Tensor) -> Tensor:
    if weight.ndim > 1 and not (LATENT_INPUT.fullmatch(name) or TEXT_INPUT.search(name)):
        weight = _padded_input(name, weight)
    if LATENT_OUTPUT.fullmatch(name):
        return weight
    joined = weight.ndim == 1 and JOINED_INPUT.fullmatch(name)
    return _widened(weight, 0, parts=2 if joined or GATED_OUTPUT.fullmatch(name) else 1)


def _padded_input(name: str, weight: Tensor) -> Tensor:
    if SINUSOID_INPUT.fullmatch(name):
        return _spread(weight)
    return _widened(weight, 1, parts=2 if JOINED_INPUT.fullmatch(name) else 1)


def padded_settings(settings: dict[str, object]) -> dict[str, object]:
    """Settings of an adaptor, as read from its file's metadata, for the wide network: its sites, heads and ends.

    Raises ValueError unless its heads have HEAD_CHANNELS channels, as in the wide network: padding adds whole heads.
    """
    heads = settings["heads"]
    for site in settings["sites"]:
        if site["kind"] == "transformer" and site["channels"] != heads * HEAD_CHANNELS:
            raise ValueError(
                f"an adaptor to be padded must have heads of {HEAD_CHANNELS} channels; "
                f"{site['name']} has {heads} heads for {site['channels']} channels"
            )
    sites = [site | {"channels": site["channels"] * WIDENING} for site in settings["sites"]]
    ends = {name: settings[name] * WIDENING for name in ("heads", "time_channels", "embedding_channels")}
    return settings | ends | {"sites": sites}


def padded_adaptor(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a VideoAdaptor, narrow to wide: S with 1, everything else with 0."""
    low_rank = {name.removesuffix(".down.weight") for name in weights if name.endswith(".down.weight")}
    return {name: _padded_adaptor_weight(name, weight, low_rank) for name, weight in weights.items()}


def _padded_adaptor_weight(name: str, weight: Tensor, low_rank: set[str]) -> Tensor:
    if name.startswith(("frame.", "spatial.")):
        return _widened(weight, 1, filling=1.0 if SCALE.fullmatch(name) else 0.0)
    # The rank of a low-rank projection, down's output and up's input, is no number of channels.
    if weight.ndim > 1 and name.removesuffix(".up.weight") not in low_rank:
        weight = _padded_input(name, weight)
    return weight if name.endswith(".down.weight") else _widened(weight, 0)


def _widened(weight: Tensor, axis: int, parts: int = 1, filling: float = 0.0) -> Tensor:
    """Each of the parts that lie behind one another on the axis is filled up to twice its length."""
    pieces = []
    for part in weight.chunk(parts, dim=axis):
        shape = list(part.shape)
        shape[axis] *= WIDENING - 1
        pieces += [part, part.new_full(shape, filling)]
    return torch.cat(pieces, dim=axis)


def _spread(weight: Tensor) -> Tensor:
    """o i -> o 2i: the wide network's sinusoid has each of the narrow one's frequencies, and one between each two."""
    filled = torch.stack([weight, torch.zeros_like(weight)], dim=-1)
    return rearrange(filled, "o i two -> o (i two)")


def pad_adaptor_file(narrow: Path, wide: Path) -> None:
    """Writes the adaptor file ``wide``, made of ``narrow``, whole or not at all.

    Raises ValueError for a file that is no adaptor, or one whose heads cannot be padded.
    """
    with safe_open(narrow, "pt") as file:
        metadata = file.metadata() or {}
        if SETTINGS not in metadata:
            raise ValueError(f"{narrow} is no adaptor file: it has no {SETTINGS} in its metadata")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no dict
    metadata[SETTINGS] = json.dumps(padded_settings(json.loads(metadata[SETTINGS])))
    save_tensors(wide, padded_adaptor(weights), metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pads an adaptor of the narrow image network to the wide one.")
    parser.add_argument("narrow", type=Path)
    parser.add_argument("wide", type=Path)
    options = parser.parse_args()
    pad_adaptor_file(options.narrow, options.wide)
    print(f"{options.wide} ({options.wide.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    main()
