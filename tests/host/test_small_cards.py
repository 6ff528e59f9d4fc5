"""What makes a training need less of a card: the same results, or those of rounded weights, and fewer bytes."""

import json
import sys
from pathlib import Path

import comfy.model_management
import pytest
import torch
from comfy.ldm.modules.attention import FeedForward
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from small_host import SMALL, build_model
from torch import Tensor
from toy import Told

from graph_training import folders_below, graph_training
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.training_unet import FP8, TrainingUnet
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.run_state import states
from magicvideo.adaptor_unet.training.settings import RunSettings, TrainingSettings
from magicvideo.benchmarks.training_memory import Case, peaks
from magicvideo.trainer.command import TrainCommand
from magicvideo.trainer.graph_runs import run_files, write_inputs
from magicvideo.trainer.motion_training import MotionTraining, Output, RunParts

FRAMES, DEVICE = 3, torch.device("cpu")
SMALLER = {"base_precision": "fp8", "offload_activations": True, "offload_averages": True}


def gradients(denoiser: TrainingUnet, model: ModelPatcher) -> dict[str, Tensor]:
    """Of an adaptor's values, by a clip; and what the model puts out."""
    adaptor = new_adaptor(config_for(model, frames=FRAMES, rank=4), "random")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adaptor.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    x, text = torch.randn(FRAMES, 4, 8, 8, generator=generator), torch.randn(1, 5, SMALL["context_dim"])
    out = denoiser.predict(x, torch.full((FRAMES,), 2.0), torch.ones_like(text), (8.0,), adaptor)
    out.square().mean().backward()
    return {name: parameter.grad for name, parameter in adaptor.named_parameters()} | {"out": out.detach()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())


@pytest.mark.usefixtures("either_layers")
def test_a_base_in_8_bits_is_the_base_with_rounded_weights() -> None:
    model = build_model(model_channels=32)
    narrow = TrainingUnet(model, DEVICE, torch.float32, checkpointing=True, fp8=True)
    kinds = {parameter.ndim > 1: parameter.dtype for parameter in narrow.unet.parameters()}
    assert kinds == {True: FP8, False: torch.float32}
    whole = gradients(TrainingUnet(model, DEVICE, torch.float32, checkpointing=True), model)
    found = gradients(narrow, model)
    with torch.no_grad():
        for parameter in model.model.diffusion_model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.to(FP8).to(torch.float32))
    assert same(found, gradients(TrainingUnet(model, DEVICE, torch.float32, checkpointing=True), model))
    assert not same(found, whole)


@pytest.mark.on_newest
def test_activations_that_wait_in_main_memory_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    away, moving = [], torch.autograd.graph.save_on_cpu
    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", lambda **how: away.append(how) or moving(**how))
    model = build_model(model_channels=32)
    beside = gradients(TrainingUnet(model, DEVICE, torch.float32, checkpointing=True), model)
    for checkpointing in (True, False):
        assert same(gradients(TrainingUnet(model, DEVICE, torch.float32, checkpointing, offload=True), model), beside)
    assert len(away) == 2


@pytest.mark.on_newest
def test_few_frames_at_once_give_the_same_gradients() -> None:
    model = build_model(model_channels=32)
    together = gradients(TrainingUnet(model, DEVICE, torch.float32, checkpointing=True), model)
    denoiser, rows = TrainingUnet(model, DEVICE, torch.float32, True, frames_at_once=2), []
    widest = next(module for module in denoiser.unet.modules() if isinstance(module, FeedForward))
    widest.net.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    apart = gradients(denoiser, model)
    assert set(rows) == {2, 1}
    for name, gradient in together.items():
        torch.testing.assert_close(apart[name], gradient)


def test_where_the_device_cannot_read_8_bits_it_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = TrainCommand(tmp_path / "no base", tmp_path, None, tmp_path / "a")
    monkeypatch.setattr(comfy.model_management, "supports_cast", lambda *_: False)
    with pytest.raises(ValueError, match="base_precision fp8 does not work on cpu. Take base_precision auto"):
        command.train(RunSettings.from_values({"base_precision": "fp8"}))
    for name in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="optimiser adamw_8bit needs bitsandbytes"):
        command.train(RunSettings.from_values({"optimiser": "adamw_8bit"}))
    with pytest.raises(ImportError, match="optimiser adamw_8bit needs bitsandbytes"):
        graph_training(optimiser="adamw_8bit").train()


def run(folder: Path, told: Told, resume: bool = False) -> MotionTraining:
    from accelerate import Accelerator

    model, generator = build_model(model_channels=32), torch.Generator().manual_seed(0)
    text = torch.randn(5, SMALL["context_dim"], generator=generator)
    clip = LatentClip(torch.randn(FRAMES, 4, 8, 8, generator=generator), 8.0, text, "a clip")
    quick = {"steps": 3, "precision": "fp32", "sample_every": 0, "validate_every": 0, "learning_rate": 1e-3}
    parts = RunParts(
        model=model,
        clips=TrainingClips(MemoryClips((clip,)), (clip,), torch.zeros_like(text)),
        settings=TrainingSettings(**quick | SMALLER),
        output=Output(folder / "a.safetensors", folder / "b.safetensors", folder / "run"),
        accelerator=Accelerator(cpu=True),
        watchers=lambda done: [told.begun(done)],
        resume=resume,
    )
    return MotionTraining(parts, new_adaptor(config_for(model, frames=FRAMES, rank=4), "random"))


@pytest.mark.on_newest
def test_with_all_of_them_a_run_is_stopped_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    assert run(tmp_path / "whole", Told()).train()
    assert not run(tmp_path / "parts", Told(stop_at=1)).train()
    resumed = Told()
    assert run(tmp_path / "parts", resumed, resume=True).train() and resumed.begun_at == 1
    one, other = (load_file(states(tmp_path / name / "run")[-1]) for name in ("whole", "parts"))
    assert same(one, other)


@pytest.mark.on_newest
def test_what_a_step_takes_of_a_card_is_counted_and_the_settings_take_less() -> None:
    def found(**settings: object) -> dict[str, int]:
        return peaks(Case(64, 2, {"precision": "bf16"} | settings, tiny=True), counted=True, every=False)

    whole, less, rest = found(), found(**SMALLER, frames_at_once=1), "activations and the rest"
    assert whole["a step"] == sum(x for name, x in whole.items() if name != "a step")
    assert 0.45 < less["base"] / whole["base"] < 0.55
    assert whole["averages"] == whole["adaptor"] == less["adaptor"] and less["averages"] == 0
    assert less[rest] < whole[rest]


def test_a_run_in_a_graph_of_a_version_with_fewer_settings_is_the_same_run(tmp_path: Path) -> None:
    folders = folders_below(tmp_path)
    asked = RunSettings.from_values({"steps": 7}).told(motion_module=False) | {"model": "a"}
    known = json.loads(json.dumps(asked))
    output, there = run_files(folders, "motion", known, "frozen")
    output.folder.mkdir(parents=True)
    earlier = known | {"training": {name: x for name, x in known["training"].items() if name != "optimiser"}}
    write_inputs(output, earlier)
    assert not there and run_files(folders, "motion", known, "frozen")[1]
    other = known | {"training": known["training"] | {"optimiser": "adamw_8bit"}}
    assert not run_files(folders, "motion", other, "frozen")[1]
