"""Where bin/train writes, and what it never writes over."""

from pathlib import Path
from types import SimpleNamespace

import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import EPS, V_PREDICTION, X0, ModelSamplingDiscrete
from comfy_extras.nodes_model_advanced import LCM, ModelSamplingDiscreteDistilled
from small_host import SMALL, SMALL_SDXL, build_model

from magicvideo.adaptor_unet.host.training_files import BaseCheckpoint, sampling_keys
from magicvideo.adaptor_unet.training.run_identity import lasting_settings
from magicvideo.adaptor_unet.training.run_state import RunState, StateError
from magicvideo.adaptor_unet.training.settings import RunSettings
from magicvideo.adaptor_unet.training.trainables import MovingAverage
from magicvideo.trainer.command import TrainCommand


def command(output: Path, resume: bool = False) -> TrainCommand:
    return TrainCommand(Path("base.safetensors"), Path("clips"), None, output, resume=resume)


@pytest.mark.parametrize("name", ["waves", "waves_v1.5", "waves_v1.6", "a.b.c", "파도.1", ".hidden", "waves.ckpt"])
@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_a_dot_in_a_name_is_part_of_it(name: str, ending: str, tmp_path: Path) -> None:
    output = command(tmp_path / (name + ending))._output()
    assert output.adaptor == tmp_path / f"{name}.safetensors"
    assert (output.folder, output.base) == (tmp_path / f"{name}.run", tmp_path / f"{name}_base.safetensors")


def test_resuming_never_writes_over_an_adaptor_that_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "waves.safetensors").write_bytes(b"weeks of work")
    with pytest.raises(ValueError, match="waves.safetensors is there already.* no state to go on from"):
        command(tmp_path / "waves", resume=True)._output()
    (tmp_path / "waves.run").mkdir()
    (tmp_path / "waves.run" / "step-00000004.state").write_bytes(b"it may be sound")
    assert command(tmp_path / "waves", resume=True)._output().adaptor == tmp_path / "waves.safetensors"


def refused_early(made: TrainCommand, **settings: object) -> None:
    """All that is looked at before a clip is read."""
    base = SimpleNamespace(model=build_model(model_channels=32), fingerprint="base")
    asked = RunSettings.from_values({"rank": 4, "init": "random"} | settings)
    made._refused_early(asked, base, made._output(), SimpleNamespace(num_processes=1))


def test_a_tuned_base_that_is_there_is_refused_before_a_clip_is_read(tmp_path: Path) -> None:
    (tmp_path / "waves_base.safetensors").write_bytes(b"weeks of work")
    for resume in (False, True):
        for tuning in ("lora", "full"):
            with pytest.raises(ValueError, match="waves_base.safetensors is there already.* It stays as it is"):
                refused_early(command(tmp_path / "waves", resume), base_tuning=tuning)
        refused_early(command(tmp_path / "waves", resume))


def test_a_state_of_another_run_is_refused_before_a_clip_is_read(tmp_path: Path) -> None:
    made = command(tmp_path / "waves", resume=True)
    base = SimpleNamespace(model=build_model(model_channels=32), fingerprint="base")
    asked = RunSettings.from_values({"rank": 4, "init": "random"})
    known = lasting_settings(asked.training) | made._identity(asked, base, made._plan(asked, base))
    weight = torch.nn.Parameter(torch.ones(1))
    run = RunState({"w": weight}, MovingAverage({"w": weight}, 0.9), torch.optim.AdamW([weight]), known, 4)
    run.save(tmp_path / "waves.run", 2)
    refused_early(made, steps=9, learning_rate=1e-3)
    for other, words in (({"seed": 1}, "seed 0"), ({"batch": 2}, "batch 1"), ({"rank": 8}, "rank 4, this one has 8")):
        with pytest.raises(StateError, match=f"belongs to a run with .*{words}"):
            refused_early(made, **other)


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    (tmp_path / "waves.safetensors").mkdir()
    for resume in (False, True):
        with pytest.raises(ValueError, match="waves.safetensors.* that is a folder. Choose another name"):
            command(tmp_path / "waves", resume)._output()
    with pytest.raises(ValueError, match="is a folder; expected a Stable Diffusion checkpoint"):
        BaseCheckpoint(tmp_path)


@pytest.mark.parametrize(
    ("told", "keys"),
    [
        ({}, set()),
        ({"v_pred": 0.0}, {"v_pred"}),
        ({"v_pred": 0.0, "ztsnr": 0.0}, {"v_pred", "ztsnr"}),
        ({"edm_vpred.sigma_max": 120.0, "edm_vpred.sigma_min": 0.002}, {"edm_vpred.sigma_max", "edm_vpred.sigma_min"}),
    ],
)
def test_a_tuned_checkpoint_says_how_it_is_sampled(told: dict[str, float], keys: set[str]) -> None:
    model = sdxl_told(told)
    found = sampling_keys(model)
    assert set(found) == keys
    again = sdxl_told(found)
    assert again.model.model_type == model.model.model_type
    assert again.model.model_sampling.sigma_max == model.model.model_sampling.sigma_max


def test_a_base_whose_sampling_no_checkpoint_can_tell_is_not_tuned_whole() -> None:
    model = sdxl_told({"edm_mean": 0.0, "edm_std": 1.0})
    with pytest.raises(ValueError, match="EDM.*Take base_tuning lora or frozen"):
        sampling_keys(model)


@pytest.mark.parametrize(
    ("kinds", "zsnr"),
    [
        ((ModelSamplingDiscrete, V_PREDICTION), False),
        ((ModelSamplingDiscrete, V_PREDICTION), True),
        ((ModelSamplingDiscrete, EPS), True),
        ((ModelSamplingDiscreteDistilled, LCM), False),
        ((ModelSamplingDiscrete, X0), False),
    ],
)
def test_a_model_that_a_node_has_sampled_as_no_file_of_its_family_can_say_is_not_tuned_whole(
    kinds: tuple[type, type], zsnr: bool
) -> None:
    model = build_model(model_channels=32)
    assert sampling_keys(model) == {}
    model.add_object_patch("model_sampling", type("Advanced", kinds, {})(model.model.model_config, zsnr=zsnr))
    with pytest.raises(ValueError, match=f"none of this family can say .*{kinds[1].__name__}.* Take base_tuning lora"):
        sampling_keys(model)


@pytest.mark.parametrize("name", [".", "..", "folder/.safetensors"])
def test_an_output_without_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--output .* names no file: give the adaptor a name"):
        command(Path(name))._output()


def sdxl_told(told: dict) -> ModelPatcher:
    """An SDXL model as the host makes it of a checkpoint with these keys beside its weights."""
    settings = SMALL | SMALL_SDXL | {"dtype": torch.float32}
    config = comfy.supported_models.SDXL(settings)
    config.unet_config, config.manual_cast_dtype = settings, None
    made = config.get_model({name: torch.as_tensor(value) for name, value in told.items()}, device="cpu")
    return ModelPatcher(made, torch.device("cpu"), torch.device("cpu"))
