"""What bin/train needs of the base, and when; and what a tuned base is saved as."""

import json
from pathlib import Path

import comfy.sd
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_clips import write_clip

from magicvideo.adaptor_unet.host.training_files import BaseCheckpoint, encoders_fingerprint
from magicvideo.adaptor_unet.training.data.cache_files import read_metadata
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips
from magicvideo.adaptor_unet.training.data.shards import write_shards
from magicvideo.adaptor_unet.training.settings import ALL_SETTINGS, RunSettings
from magicvideo.tools.make_random_checkpoint import write_random
from magicvideo.trainer.command import TrainCommand

CHECKPOINT = Path(__file__).resolve().parents[2] / ".demo" / "models" / "checkpoints" / "magicvideo_random.safetensors"
SMALL = {"frames": 2, "width": 64, "height": 64, "rank": 4, "init": "random", "draws_per_clip": 1, "steps": 1}
SMALL |= {"sample_every": 0, "validate_every": 0, "precision": "fp32", "still_share": 0.0}


def small(**settings: object) -> RunSettings:
    return RunSettings.from_values(SMALL | settings)


@pytest.fixture
def command(tmp_path: Path) -> TrainCommand:
    if not CHECKPOINT.is_file():
        write_random(CHECKPOINT, "checkpoint")
    write_clip(tmp_path / "clips" / "a.mp4")
    return TrainCommand(CHECKPOINT, tmp_path / "clips", None, tmp_path / "out" / "a.safetensors", resume=True)


@pytest.mark.slow
@pytest.mark.on_newest
def test_a_second_start_needs_no_autoencoder_and_no_text_encoder(
    command: TrainCommand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = []
    real = BaseCheckpoint._load

    def load(base: BaseCheckpoint, clip: bool) -> tuple:
        loaded.append("encoders" if clip else "model")
        return real(base, clip)

    monkeypatch.setattr(BaseCheckpoint, "_load", load)
    assert command.train(small())
    assert sorted(loaded) == ["encoders", "model"]
    loaded.clear()
    assert command.train(small(steps=2))
    assert loaded == ["model"]
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr("magicvideo.trainer.plans.MotionTraining", pytest.fail)
        assert command.train(small(steps=2))
    assert "all 2 steps were done before, and nothing was trained now" in caplog.text
    with pytest.raises(ValueError, match="belongs to a run with seed 0, this one has 1"):
        command.train(small(steps=2, seed=1, draws_per_clip=1))


@pytest.mark.slow
@pytest.mark.on_newest
def test_a_base_that_is_tuned_whole_is_a_checkpoint_for_the_stock_loader(command: TrainCommand) -> None:
    assert command.train(small(base_tuning="full", base_rate=1e-2, ema=0.0))
    path = command.output.with_name("a_base.safetensors")
    tuned, clip, vae = comfy.sd.load_checkpoint_guess_config(str(path))[:3]
    before, clip_before, vae_before = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT))[:3]
    assert type(tuned.model) is type(before.model)
    old, new = (x.model.diffusion_model.state_dict() for x in (before, tuned))
    assert set(old) == set(new)
    assert sum(not torch.equal(old[name], new[name]) for name in old) > 0.9 * len(old)
    for a, b in ((clip.get_sd(), clip_before.get_sd()), (vae.get_sd(), vae_before.get_sd())):
        assert set(a) == set(b)
        # No SD1.5 checkpoint holds a text projection, and the oldest host leaves it uninitialised.
        names = [name for name in a if isinstance(a[name], torch.Tensor) and "text_projection" not in name]
        assert names and all(torch.equal(a[name], b[name]) for name in names)


@pytest.mark.slow
def test_the_same_encoders_have_the_same_name_at_every_start_and_others_another() -> None:
    if not CHECKPOINT.is_file():
        write_random(CHECKPOINT, "checkpoint")
    names = []
    for _ in range(2):
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT))[:3]
        names.append(encoders_fingerprint(model, clip, vae))
    clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm.bias.data += 0.1
    names.append(encoders_fingerprint(model, clip, vae))
    assert names[0] == names[1] != names[2]


@pytest.mark.on_newest
def test_the_settings_of_clips_are_those_of_the_shards(tmp_path: Path) -> None:
    clip = LatentClip(torch.ones(3, 4, 8, 16), 8.0, torch.ones(2, 5))
    write_shards(MemoryClips((clip,)), tmp_path / "told", clip.text, settings=DataSettings(frames=3, stills=True))
    write_shards(MemoryClips((clip,)), tmp_path / "untold", clip.text)
    for folder, size in (("told", (512, 512)), ("untold", (128, 64))):
        command = TrainCommand(Path("base"), None, tmp_path / folder, tmp_path / "a")
        for train in ("adaptor", "motion_lora"):
            settings = command._as_in_shards(RunSettings.from_values({"train": train}), ALL_SETTINGS)
            assert (settings.clips.width, settings.clips.height) == size
            assert settings.adaptor_settings["frames"] == 3 and settings.clips.stills == (train == "adaptor")
        with pytest.raises(ValueError, match="flip is True, but the clips in .* are encoded already"):
            command._as_in_shards(RunSettings.from_values({"flip": True}), ALL_SETTINGS.keys() - {"flip"})


@pytest.mark.slow
@pytest.mark.on_oldest
def test_shards_train_the_adaptor_that_the_folder_trains(command: TrainCommand, tmp_path: Path) -> None:
    from dataclasses import replace

    from safetensors.torch import load_file

    assert command.train(small(validation_clips=1))
    replace(command, write_shards=tmp_path / "shards").train(small())
    sharded = replace(command, clips=None, shards=tmp_path / "shards", output=tmp_path / "other" / "a.safetensors")
    # What the shards were written with need not be said again.
    chosen = {name: x for name, x in SMALL.items() if name not in ("frames", "width", "height", "draws_per_clip")}
    settings = RunSettings.from_values(chosen | {"validation_clips": 1})
    with pytest.raises(ValueError, match="frames is 16, but the clips in .*shards are encoded already, with 2"):
        sharded.train(settings, left_open=ALL_SETTINGS.keys() - {*chosen, "frames"})
    assert sharded.train(settings, left_open=ALL_SETTINGS.keys() - chosen.keys())
    told = json.loads(read_metadata(sharded.output)["magicvideo.training"])["clips"]
    assert (told["frames"], told["width"], told["draws_per_clip"]) == (2, 64, 1)
    one, other = load_file(command.output), load_file(sharded.output)
    assert all(torch.equal(x, other[name]) for name, x in one.items())


@pytest.mark.slow
@pytest.mark.on_newest
def test_a_checkpoint_without_an_autoencoder_is_told_of_in_words(tmp_path: Path) -> None:
    if not CHECKPOINT.is_file():
        write_random(CHECKPOINT, "checkpoint")
    tensors = {name: x for name, x in load_file(CHECKPOINT).items() if not name.startswith("first_stage_model.")}
    save_file(tensors, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="bare.safetensors holds no autoencoder"):
        _ = BaseCheckpoint(tmp_path / "bare.safetensors").encoders
