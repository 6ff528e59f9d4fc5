"""The demo's motion module: trained by the pack's own loop on the narrow network, and a file that the loader takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import Told

from magicvideo.adaptor_unet.motion_module_file import load_motion_module
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, TrainingClips
from magicvideo.demo.model.narrow_unet import narrow_model
from magicvideo.demo.train.encode_stills import word_numbers, word_table
from magicvideo.demo.train.motion import BATCH, SpriteClips
from magicvideo.demo.train.motion_module import CONFIG, SETTINGS, module_training, new_module, public_tensors
from magicvideo.tools.motion_module_files import VARIANTS, Size, official_shapes
from motion_modules import plain

pytestmark = pytest.mark.on_oldest


def clip(number: int) -> LatentClip:
    generator = torch.Generator().manual_seed(number)
    text = word_table()[word_numbers("a cat moving left")]
    return LatentClip(torch.randn(2, 4, 8, 8, generator=generator).half(), 8.0, text, "a cat moving left")


def test_it_learns_goes_on_where_it_was_and_is_read_as_a_public_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = narrow_model().model.diffusion_model.state_dict()
    save_file({name: torch.randn_like(x) * 0.02 if x.ndim > 1 else x for name, x in weights.items()}, tmp_path / "base")
    made = tuple(map(clip, range(BATCH)))
    clips = TrainingClips(SpriteClips(made), made[:1], torch.zeros(3, 768))
    settings = replace(SETTINGS, steps=2, precision="fp32", validate_every=0)

    def train(folder: str, stop_at: int | None = None) -> bool:
        return module_training(clips, settings, tmp_path / folder, tmp_path / "base", [Told(stop_at)]).train()

    assert train("whole") and not train("parts", stop_at=1) and train("parts")
    one, other = (load_file(tmp_path / folder / "module.safetensors") for folder in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())
    module = load_motion_module(tmp_path / "whole" / "module.safetensors", plain)
    assert module.config == CONFIG
    assert all(one.proj_out.weight.count_nonzero() for one in module.transformers().values())


def test_its_file_has_the_names_and_shapes_of_a_public_one() -> None:
    shapes = {name: tuple(x.shape) for name, x in public_tensors(new_module()).items()}
    assert shapes == official_shapes(Size(CONFIG.widths, CONFIG.depth), VARIANTS["v3"])
