"""The demo's motion training: the pack's own loop on the narrow network, and files that the demo's set-up takes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from magicvideo.adaptor_unet.checkpoint import load, save
from magicvideo.adaptor_unet.host.hosted import adaptor_for
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, TrainingClips
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.watchers import Watcher
from magicvideo.demo.model.narrow_unet import NARROW_HEADS, narrow_model
from magicvideo.demo.model.padding import pad_adaptor_file, padded_unet
from magicvideo.demo.train.encode_stills import word_numbers, word_table
from magicvideo.demo.train.motion import BATCH, SETTINGS, SpriteClips, begun_with, narrow_parts
from magicvideo.trainer.motion_training import MotionTraining

# What differs between versions of ComfyUI is in the tests of the trainer itself.
pytestmark = pytest.mark.on_oldest


class Silent(Watcher):
    """Stops after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left, self.seen = steps, []

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        self.seen.append(values)
        self.left -= "loss" in values

    def stop(self) -> bool:
        return self.left <= 0


def clip(number: int, frames: int) -> LatentClip:
    generator = torch.Generator().manual_seed(number)
    text = word_table()[word_numbers("a cat moving left")]
    return LatentClip(torch.randn(frames, 4, 8, 8, generator=generator).half(), 8.0, text, "a cat moving left")


@pytest.fixture(scope="module")
def clips() -> TrainingClips:
    """Two steps' worth of short clips and one of longer ones than the adaptor was made for."""
    made = tuple(clip(number, 2 if number < 2 * BATCH else 5) for number in range(3 * BATCH))
    return TrainingClips(SpriteClips(made), made[:2], torch.zeros(3, 768))


@pytest.fixture
def narrow_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    weights = narrow_model().model.diffusion_model.state_dict()
    return {name: torch.randn_like(weight) * 0.02 if weight.ndim > 1 else weight for name, weight in weights.items()}


def trained(
    weights: dict[str, torch.Tensor], clips: TrainingClips, folder: Path, stop_after: int = 99, **settings: object
) -> Silent:
    model = narrow_model(weights)
    adaptor = adaptor_for(model, heads=NARROW_HEADS, frames=3, shared_noise=0.2)
    chosen = {"steps": 3, "warm_up": 0, "precision": "fp32", "validate_every": 0, "base_still_share": 0.0}
    watcher, wanted = Silent(stop_after), TrainingSettings(**vars(SETTINGS) | chosen | settings)
    MotionTraining(narrow_parts(model, clips, wanted, folder, lambda done: [watcher]), adaptor).train()
    return watcher


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_what_is_trained_is_written_and_can_be_padded(
    narrow_weights: dict[str, torch.Tensor], clips: TrainingClips, tmp_path: Path, tuning: str
) -> None:
    watcher = trained(narrow_weights, clips, tmp_path, base_tuning=tuning)
    assert len(watcher.seen) == 3 and all(torch.isfinite(torch.tensor(v["loss"])) for v in watcher.seen)
    adaptor = load(tmp_path / "adaptor.safetensors")
    assert adaptor.config.heads == NARROW_HEADS
    assert any(p.count_nonzero() for name, p in adaptor.named_parameters() if name.endswith("to_out.up.weight"))
    pad_adaptor_file(tmp_path / "adaptor.safetensors", tmp_path / "wide.safetensors")
    wide = load(tmp_path / "wide.safetensors").config
    assert (wide.heads, wide.shared_noise) == (2 * NARROW_HEADS, 0.2)
    assert (tmp_path / "base.safetensors").is_file() == (tuning == "full")
    if tuning == "full":
        tuned = load_file(tmp_path / "base.safetensors")
        assert tuned.keys() == narrow_weights.keys()
        moved = [name for name in tuned if not torch.allclose(tuned[name].float(), narrow_weights[name], atol=2e-5)]
        assert len(moved) > len(tuned) / 2
        padded_unet(tuned)


def test_a_run_goes_on_with_the_shared_noise_of_the_adaptor_before_unless_told_otherwise(tmp_path: Path) -> None:
    model, file = narrow_model(), tmp_path / "adaptor.safetensors"
    assert begun_with(model, None, 0, None).config.shared_noise == 0
    save(begun_with(model, None, 4, 0.2), file)
    for asked, expected in ((None, 0.2), (0.0, 0.0), (0.5, 0.5)):
        assert begun_with(model, file, 0, asked).config.shared_noise == expected
    with pytest.raises(ValueError, match="shared_noise is a share"):
        begun_with(model, file, 0, 2.0)


@pytest.mark.on_oldest
def test_a_stopped_run_goes_on_to_the_same_weights(
    narrow_weights: dict[str, torch.Tensor], clips: TrainingClips, tmp_path: Path
) -> None:
    trained(narrow_weights, clips, tmp_path / "whole")
    assert len(trained(narrow_weights, clips, tmp_path / "parts", stop_after=1).seen) == 1
    assert len(trained(narrow_weights, clips, tmp_path / "parts").seen) == 2
    for name in ("adaptor", "base"):
        one, other = (load_file(tmp_path / where / f"{name}.safetensors") for where in ("whole", "parts"))
        for key, weight in one.items():
            torch.testing.assert_close(other[key], weight, atol=1e-6, rtol=1e-4, msg=key)
