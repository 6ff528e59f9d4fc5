"""The nodes for motion modules: where they find files, what they say, and what goes through them to sampling."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler

from magicvideo.adaptor_unet.host.folders import motion_lora_names, motion_module_names, register_folder
from magicvideo.adaptor_unet.motion_module_file import MotionFileError
from magicvideo.nodes.adaptor import LoadAdaptor
from magicvideo.nodes.motion_module import ApplyMotionModule, LoadMotionLora, LoadMotionModule
from magicvideo.tools.make_random_checkpoint import random_motion_lora, random_motion_module
from magicvideo.tools.motion_module_files import SIZES
from measures import relative
from motion_modules import SMALL

KINDS = ("animatediff_models", "animatediff_motion_lora")


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A models folder of its own, and the user's further folders, which the host has read before."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    before = {kind: folder_paths.folder_names_and_paths.pop(kind, None) for kind in (*KINDS, "magicvideo")}
    for kind in KINDS:
        folder_paths.add_model_folder_path(kind, str(tmp_path / "elsewhere" / kind))
    register_folder(), register_folder()
    yield tmp_path / "models"
    for kind, value in before.items():
        folder_paths.folder_names_and_paths.pop(kind)
        if value is not None:
            folder_paths.folder_names_and_paths[kind] = value


def put(path: Path, tensors: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)


def put_module(models: Path, name: str = "mm_sd_v15_v2.ckpt", variant: str = "v2") -> str:
    put(models / "animatediff_models" / name, random_motion_module(0, variant, SMALL))
    return name


def loaded(name: str) -> ModelPatcher:
    return LoadMotionModule.execute(name).args[0]


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("magicvideo", lambda name: LoadAdaptor.fingerprint_inputs(name)),
        ("animatediff_models", lambda name: LoadMotionModule.fingerprint_inputs(name)),
        ("animatediff_motion_lora", lambda name: LoadMotionLora.fingerprint_inputs(lora_name=name, strength=1.0)),
    ],
)
def test_a_file_that_was_written_anew_is_loaded_anew(models: Path, kind: str, state: Callable[[str], str]) -> None:
    """The host keeps what a node gave as long as this is the same; a training that goes on keeps the name."""
    path = models / kind / "motion.safetensors"
    assert state(path.name) == ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"before")
    os.utime(path, (1, 1))
    before = state(path.name)
    assert before and state(path.name) == before
    path.write_bytes(b"beyond")
    assert state(path.name) != before


def test_files_are_found_where_other_packs_have_them_in_further_folders_and_in_ours(models: Path) -> None:
    places = (
        models / "animatediff_models" / "a.ckpt",
        models / "animatediff_models" / "sub" / "b.pth",
        models / "magicvideo_motion_modules" / "c.safetensors",
        models.parent / "elsewhere" / "animatediff_models" / "d.ckpt",
        models / "animatediff_models" / "readme.txt",
    )
    for place in places:
        put(place, {})
    assert set(motion_module_names()) == {"a.ckpt", str(Path("sub", "b.pth")), "c.safetensors", "d.ckpt"}
    for folder in ("animatediff_motion_lora", "magicvideo_motion_loras"):
        put(models / folder / f"{folder}.ckpt", {})
    put(models.parent / "elsewhere" / "animatediff_motion_lora" / "e.ckpt", {})
    assert set(motion_lora_names()) == {"animatediff_motion_lora.ckpt", "magicvideo_motion_loras.ckpt", "e.ckpt"}


def test_the_loader_says_what_it_found(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        out = LoadMotionModule.execute(put_module(models))
    told = "mm_sd_v15_v2.ckpt: AnimateDiff v2, 7 temporal transformers, up to 32 frames that see each other"
    assert out.ui == {"text": (told,)} and told in caplog.text


def test_the_numbers_of_a_full_module_are_told(models: Path) -> None:
    for variant, told in (("v1", "20 temporal transformers, up to 24"), ("v2", "21 temporal transformers, up to 32")):
        put(models / "animatediff_models" / "full.ckpt", random_motion_module(0, variant, SIZES["narrow"]))
        assert told in LoadMotionModule.execute("full.ckpt").ui["text"][0]


def test_from_files_to_a_clip(models: Path, model: ModelPatcher, sample: Sampler) -> None:
    module = loaded(put_module(models))
    put(models / "animatediff_motion_lora" / "pan.ckpt", random_motion_lora(1, "v2", SMALL))
    panned = LoadMotionLora.execute(module, "pan.ckpt", 0.8).args[0]
    still = LoadMotionLora.execute(module, "pan.ckpt", 0.0).args[0]
    settings = {
        "strength": 1.0,
        "noise_schedule": "auto",
        "group_norm": "auto",
        "key_scale": 1.0,
        "frames_per_clip": 0,
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    plain, with_lora, with_none = (
        sample(ApplyMotionModule.execute(model, motion_module=one, **settings).args[0], 4)
        for one in (module, panned, still)
    )
    assert torch.equal(with_none, plain)
    assert relative(with_lora, plain) > 1e-3 and relative(plain, sample(model, 4)) > 1e-3


def test_a_pickle_that_would_run_something_is_refused_by_the_hosts_reader_too(models: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return Path.mkdir, (tmp_path / "run",)

    put(models / "animatediff_models" / "evil.ckpt", {"a": Payload(), "b": torch.ones(1)})
    with pytest.raises(MotionFileError, match=r"evil\.ckpt cannot be read as plain tensors, and nothing else is read"):
        loaded("evil.ckpt")
    assert not (tmp_path / "run").exists()


def test_a_training_checkpoint_is_read_by_the_hosts_reader_too(models: Path) -> None:
    weights = {f"module.{name}": x for name, x in random_motion_module(0, "v3", SMALL).items()}
    weights["module.conv_in.weight"] = torch.ones(4, 4, 3, 3)
    put(models / "animatediff_models" / "train.ckpt", {"epoch": 1, "global_step": 2, "state_dict": weights})
    assert loaded("train.ckpt").model.config.kind == "AnimateDiff v3"


def test_a_file_in_the_wrong_slot_is_refused(models: Path) -> None:
    put(models / "animatediff_motion_lora" / "mm.ckpt", random_motion_module(0, "v2", SMALL))
    put(models / "animatediff_models" / "lora.ckpt", random_motion_lora(0, "v2", SMALL))
    module = loaded(put_module(models))
    with pytest.raises(MotionFileError, match="mm.ckpt seems to be a motion module. Use the node Load Motion Module"):
        LoadMotionLora.execute(module, "mm.ckpt", 1.0)
    with pytest.raises(MotionFileError, match="lora.ckpt is a MotionLoRA. Use the node Load Motion LoRA"):
        loaded("lora.ckpt")
