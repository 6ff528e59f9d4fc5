"""Pads an adaptor file that was trained on the narrow image network to one for the demo's checkpoint.

    python demo/pad_adaptor.py narrow.safetensors models/magicvideo/demo.safetensors

Everything else that the file says of itself stays.
"""

import argparse
import json
from pathlib import Path

from safetensors import safe_open

from make_random_checkpoint import save_whole
from pad_weights import padded_adaptor, padded_settings

SETTINGS = "magicvideo.config"


def pad_adaptor_file(narrow: Path, wide: Path) -> None:
    """Under another name first, so that an interrupted run leaves no half file behind.

    Raises ValueError for a file that is no adaptor, or one whose heads cannot be padded.
    """
    with safe_open(narrow, "pt") as file:
        metadata = file.metadata() or {}
        if SETTINGS not in metadata:
            raise ValueError(f"{narrow} is no adaptor file: it has no {SETTINGS} in its metadata")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no dict
    metadata[SETTINGS] = json.dumps(padded_settings(json.loads(metadata[SETTINGS])))
    save_whole(wide, padded_adaptor(weights), metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pads an adaptor of the narrow image network to the wide one.")
    parser.add_argument("narrow", type=Path)
    parser.add_argument("wide", type=Path)
    options = parser.parse_args()
    pad_adaptor_file(options.narrow, options.wide)
    print(f"{options.wide} ({options.wide.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    main()
