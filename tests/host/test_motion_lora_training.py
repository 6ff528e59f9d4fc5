"""A MotionLoRA trained on the real host: only it changes, it goes on where it was, and loaders of the field take it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from safetensors import safe_open
from safetensors.torch import load_file
from small_host import SMALL, build_model
from toy import Told

from graph_training import folders_below, graph_training, server_progress
from magicvideo.adaptor_unet.host.sample_clips import SampleSettings, sample_latents
from magicvideo.adaptor_unet.motion_lora import load_motion_lora, with_motion_lora
from magicvideo.adaptor_unet.training.data.latent_cache import CachedClip, FolderClips
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.tools.motion_module_files import Size, motion_lora_shapes
from magicvideo.trainer import graph
from magicvideo.trainer.motion_lora_training import MotionLoraTraining
from magicvideo.trainer.motion_training import Output, RunParts
from magicvideo.trainer.plans import MotionLoraPlan
from motion_modules import SMALL as FITTING
from motion_modules import motion_module, plain

pytestmark = pytest.mark.on_newest
QUICK = {"frame_noise_levels": "one_a_clip", "still_share": 0.0, "precision": "fp32", "sample_every": 0}
QUICK |= {"validate_every": 0, "learning_rate": 1e-2, "ema": 0.0}
RANK = 3


def clips() -> TrainingClips:
    """One clip of random numbers."""
    generator, text = torch.Generator().manual_seed(0), torch.zeros(77, SMALL["context_dim"])
    clip = LatentClip(torch.randn(4, 4, 8, 8, generator=generator), 8.0, text + 1, "a clip")
    return TrainingClips(MemoryClips((clip,)), (clip,), text)


def training(
    model: ModelPatcher, module: ModelPatcher, folder: Path, layout: str = "animatediff", **changes: object
) -> MotionLoraTraining:
    from accelerate import Accelerator

    resume = changes.pop("resume", False)
    watcher = changes.pop("watcher", None) or Told()
    parts = RunParts(
        model=model,
        clips=clips(),
        settings=TrainingSettings(**{"steps": 3} | QUICK | changes),
        output=Output(folder / "pan.safetensors", folder / "none.safetensors", folder / "run"),
        accelerator=Accelerator(cpu=True),
        watchers=lambda done: [watcher.begun(done)],
        resume=resume,
    )
    return MotionLoraTraining(parts, module, rank=RANK, layout=layout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[MotionLoraTraining, Path]:
    """A finished run, of a v2 module, and its file."""
    folder = tmp_path_factory.mktemp("trained")
    made = training(build_model(), motion_module(), folder)
    assert made.train()
    return made, folder / "pan.safetensors"


def test_the_file_has_the_public_names_and_says_how_it_was_trained(trained: tuple[MotionLoraTraining, Path]) -> None:
    with safe_open(trained[1], "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        told = file.metadata()
    assert shapes == motion_lora_shapes(FITTING, mid=True, rank=RANK)
    assert (told["ss_steps"], told["ss_network_dim"], told["ss_base_model_version"]) == ("3", "3", "sd_v1")


@pytest.mark.parametrize("layout", ["animatediff", "diffusers"])
def test_loaded_it_is_what_was_trained_and_what_a_merge_by_hand_gives(
    layout: str, trained: tuple[MotionLoraTraining, Path], tmp_path: Path
) -> None:
    run, _ = trained
    path = tmp_path / "pan.safetensors"
    run.layout, run.output = layout, replace(run.output, adaptor=path)
    run.write({}, 3, True)
    module = motion_module().model
    loaded = with_motion_lora(module, load_motion_lora(path, plain), 0.5)
    merged, before = loaded.state_dict(), module.state_dict()
    lora = run.trainables.lora
    by_hand = {f"{name}.weight": one.up @ one.down for name, one in zip(lora.places, lora.layers, strict=True)}
    assert len(by_hand) == 8 * len(module.places())
    for name, weight in before.items():
        changed = weight + 0.5 * by_hand[name] if name in by_hand else weight
        torch.testing.assert_close(merged[name], changed, rtol=1e-5, atol=1e-6)
        assert torch.equal(merged[name], weight) != (name in by_hand), name


def test_in_training_it_samples_as_the_merged_module_does(trained: tuple[MotionLoraTraining, Path]) -> None:
    run, path = trained
    how = SampleSettings((4, 4, 8, 8), 8.0, steps=2, cfg=3.0, seed=1)
    texts = torch.randn(2, 77, SMALL["context_dim"], generator=torch.Generator().manual_seed(2))
    whole = with_motion_lora(motion_module().model, load_motion_lora(path, plain), 1.0)
    found, expected, without = (
        sample_latents(run.denoiser, network, *texts, how) for network in (run.network, whole, motion_module().model)
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (found - without).abs().max() > 1e-2
    assert float(run.denoiser.sigmas[-1]) > 20, "sampled at the module's own noise levels"


@pytest.mark.parametrize("variant", ["v1", "v3"])
def test_only_the_lora_learns_and_computing_again_changes_nothing(variant: str, tmp_path: Path) -> None:
    model, module = build_model(), motion_module(variant)
    before = {name: x.clone() for name, x in module.model.state_dict().items()}
    weights = []
    for checkpointing in (False, True):
        run = training(model, module, tmp_path / f"{checkpointing}", checkpointing=checkpointing, steps=2)
        assert run.train()
        weights.append(load_file(tmp_path / f"{checkpointing}" / "pan.safetensors"))
        frozen = [*run.denoiser.unet.parameters(), *run.network.parameters()]
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in frozen)
    for name, x in weights[0].items():
        torch.testing.assert_close(weights[1][name], x, rtol=1e-3, atol=1e-5)
        assert x.count_nonzero()
    assert all(torch.equal(x, before[name]) for name, x in module.model.state_dict().items())


def test_stopped_it_goes_on_to_the_same_lora_and_is_no_other_runs(tmp_path: Path) -> None:
    model, module = build_model(), motion_module()
    assert training(model, module, tmp_path / "whole", steps=3).train()
    assert not training(model, module, tmp_path / "parts", watcher=Told(stop_at=1)).train()
    assert training(model, module, tmp_path / "parts", resume=True).train()
    one, other = (load_file(tmp_path / where / "pan.safetensors") for where in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())
    with pytest.raises(ValueError, match="motion_lora"):
        training(model, motion_module("v3"), tmp_path / "parts", resume=True, steps=4)


def test_in_bfloat16_it_follows_and_its_file_stays_in_full_precision(tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        told = Told()
        run = training(build_model(), motion_module(), tmp_path / precision, watcher=told, steps=2, precision=precision)
        assert run.train()
        losses.append(torch.tensor(told.series("loss")))
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.02)
    assert not torch.equal(losses[1], losses[0])
    assert {x.dtype for x in load_file(tmp_path / "bf16" / "pan.safetensors").values()} == {torch.float32}


def test_of_stills_a_motion_lora_is_not_trained() -> None:
    still = replace(clips().train[0], latents=torch.ones(1, 4, 8, 8))
    plan = MotionLoraPlan(build_model(), motion_module())
    with pytest.raises(ValueError, match="1 of 2 clips have one frame, of which a MotionLoRA can learn nothing"):
        plan.clips(replace(clips(), train=MemoryClips((*clips().train.clips, still))))


def test_clips_of_a_folder_are_not_read_to_find_stills(tmp_path: Path) -> None:
    def found(*rates: float) -> TrainingClips:
        cached = CachedClip(tmp_path / "gone.safetensors", rates, tmp_path / "gone too.safetensors", "a clip")
        return replace(clips(), train=FolderClips([cached, cached], clips().empty_text))

    plan, moving = MotionLoraPlan(None, None), found(8.0, 9.0)
    assert plan.clips(moving) is moving
    with pytest.raises(ValueError, match="2 of 4 clips have one frame"):
        plan.clips(found(8.0, 0.0))


def test_a_module_of_another_unet_or_of_fewer_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made for a UNet with 96, 96 channels"):
        training(build_model(), motion_module(size=Size((96, 96), depth=1)), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(tmp_path))
    with server_progress():
        yield tmp_path


def test_in_a_graph_it_is_saved_where_its_loader_looks_and_given_on_the_module(folders: Path) -> None:
    module = motion_module(size=Size((32, 32), depth=1))
    asked = {"train": "motion_lora", "rank": 2, "init": "spatial", "steps": 1, "sample_every": 0, "validate_every": 0}

    def run() -> ModelPatcher:
        return graph_training(motion_module=module, **asked).train()[0]

    made = run().model.state_dict()
    (path,) = (folders / "motion_loras").iterdir()
    assert path.name == "motion_00001.safetensors" and not (folders / "adaptors").exists()
    expected = with_motion_lora(module.model, load_motion_lora(path, plain), 1.0).state_dict()
    assert all(torch.equal(x, made[name]) for name, x in expected.items())
    again = run().model.state_dict()
    assert all(torch.equal(x, again[name]) for name, x in made.items()) and len(list(path.parent.iterdir())) == 1


def test_the_diffusers_library_loads_it_and_computes_what_the_merged_module_computes(tmp_path: Path) -> None:
    """By the pipeline's own ``load_lora_weights``, which needs the library peft."""
    pytest.importorskip("peft")
    from diffusers import AnimateDiffPipeline

    import diffusers_reference as reference
    from magicvideo.adaptor_unet.host.hosted import hosted_motion_module
    from motion_modules import from_tensors, narrow_model

    model, adapter = narrow_model(), reference.adapter(mid=True)
    module = hosted_motion_module(from_tensors(adapter.state_dict()))
    run = training(model, module, tmp_path, "diffusers", steps=2, learning_rate=3e-2)
    assert run.train()
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "scheduler"))
    pipeline = AnimateDiffPipeline(unet=reference.image_unet(model), motion_adapter=adapter, **parts)
    x = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    text = torch.randn(1, 7, SMALL["context_dim"], generator=torch.Generator().manual_seed(4))
    plainly = reference.run(pipeline.unet, x, 500, text)
    pipeline.load_lora_weights(str(tmp_path), weight_name="pan.safetensors")
    found = reference.run(pipeline.unet, x, 500, text)
    lora = load_motion_lora(tmp_path / "pan.safetensors", plain)
    merged = reference.adapter(mid=True)
    merged.load_state_dict(as_library(with_motion_lora(module.model, lora, 1.0).state_dict(), merged.state_dict()))
    expected = reference.run(reference.motion_unet(reference.image_unet(model), merged), x, 500, text)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert (found - plainly).abs().max() > 1e-2


def as_library(tensors: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A module's tensors under the library's names; what it has beside, positions, stays."""
    names = {
        "attention_blocks.0.": "attn1.",
        "attention_blocks.1.": "attn2.",
        ".norms.0.": ".norm1.",
        ".norms.1.": ".norm2.",
        ".ff_norm.": ".norm3.",
    }
    found = {}
    for name, x in tensors.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found[name] = x
    assert found.keys() <= others.keys()
    return others | found
