"""Bad input gets one clear sentence, and the model stays clean."""

import math
from pathlib import Path

import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from small_host import Sampler, build_model, other_family

from magicvideo.adaptor_unet.checkpoint import AdaptorFileError
from magicvideo.adaptor_unet.host.folders import adaptor_names, file_state, load_adaptor, register_folder, save_adaptor
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind


@pytest.mark.parametrize("family", ["SDXLRefiner", "SVD_img2vid", "Stable_Cascade_C", "SD3", "Flux"])
def test_a_model_of_another_family_is_refused_by_name(adaptor: ModelPatcher, family: str) -> None:
    for refuse in (lambda m: bind(m, adaptor), fresh_adaptor):
        with pytest.raises(ValueError, match=rf"Stable Diffusion 1\.x, 2\.x and XL.*this model is {family}\. Load a"):
            refuse(other_family(family))


def test_an_adaptor_for_another_unet_is_refused_with_both_named(adaptor: ModelPatcher) -> None:
    other = build_model(num_res_blocks=2, transformer_depth=[1] * 4, transformer_depth_output=[1] * 6)
    with pytest.raises(
        ValueError, match=r"19 convolutions and 7 transformers.*but.*27 convolutions and 11 transformers"
    ):
        bind(other, adaptor)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strength": math.nan}, "strength .* finite"),
        ({"strength": math.inf}, "strength .* finite"),
        ({"fps": 0.0}, "fps .* above 0"),
        ({"fps": math.nan}, "fps .* above 0"),
        ({"frames_per_clip": -1}, "frames_per_clip .* 0 or more"),
        ({"start_percent": 1.5}, "start_percent and end_percent of Apply MagicVideo must lie in 0 to 1"),
        ({"end_percent": math.nan}, "start_percent and end_percent of Apply MagicVideo must lie in 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused_before_sampling(
    model: ModelPatcher, adaptor: ModelPatcher, settings: dict, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        bind(model, adaptor, **settings)


@pytest.mark.parametrize("frames", [1, 3, 5, 6])
def test_a_batch_that_holds_no_whole_clips_is_refused_and_the_model_stays_clean(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, frames: int
) -> None:
    plain = sample(model, frames)
    bound = bind(model, adaptor, frames_per_clip=4)
    with pytest.raises(ValueError, match=rf"frames_per_clip of Apply MagicVideo is 4.*holds {frames} frames"):
        sample(bound, frames)
    assert torch.equal(sample(model, frames), plain)
    assert sample(bound, 8).isfinite().all()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh model folder, with a space and other letters in its name, in the place of the host's."""
    place = tmp_path / "mödels 모델" / "magicvideo"
    place.mkdir(parents=True)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "magicvideo", ([str(place)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    return place


def test_registering_the_folder_twice_lists_it_once_and_keeps_extra_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    folder_paths.folder_names_and_paths.pop("magicvideo", None)
    folder_paths.add_model_folder_path("magicvideo", str(tmp_path))
    register_folder(), register_folder()
    paths, extensions = folder_paths.folder_names_and_paths["magicvideo"]
    assert paths == [str(tmp_path), str(Path(folder_paths.models_dir) / "magicvideo")]
    assert extensions == {".safetensors"}


def test_saved_then_loaded_an_adaptor_makes_the_same_clip(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, folder: Path
) -> None:
    path = save_adaptor(adaptor, "my/motion", {"modelspec.title": "Waves"})
    assert path == folder / "my" / "motion_00001.safetensors"
    assert adaptor_names() == [str(Path("my") / "motion_00001.safetensors")]
    loaded = load_adaptor(adaptor_names()[0])
    assert loaded.model.metadata["modelspec.title"] == "Waves"
    assert torch.equal(sample(bind(model, loaded)), sample(bind(model, adaptor)))


def test_saving_again_takes_the_next_number_and_overwrites_nothing(adaptor: ModelPatcher, folder: Path) -> None:
    first = save_adaptor(adaptor, "motion", {})
    before = first.read_bytes()
    (folder / "motion_00002.safetensors").write_bytes(b"somebody else's")
    assert save_adaptor(adaptor, "motion", {}).name == "motion_00003.safetensors"
    assert first.read_bytes() == before
    assert (folder / "motion_00002.safetensors").read_bytes() == b"somebody else's"


@pytest.mark.parametrize("prefix", ["../out", "a/../../out", "/tmp/out", "", "   ", "folder/"])
def test_a_name_outside_the_folder_or_without_letters_is_refused(
    adaptor: ModelPatcher, folder: Path, prefix: str
) -> None:
    with pytest.raises(ValueError, match="filename_prefix"):
        save_adaptor(adaptor, prefix, {})
    assert not list(folder.parent.rglob("*.safetensors"))


def test_a_prefix_from_another_system_names_a_folder_here_too(adaptor: ModelPatcher, folder: Path) -> None:
    assert save_adaptor(adaptor, "my\\motion", {}) == folder / "my" / "motion_00001.safetensors"


def test_nothing_is_written_into_another_packs_own_folder(
    adaptor: ModelPatcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = folder.parent / "custom_nodes"
    theirs = [str(packs / "another pack" / "models"), str(folder)]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "magicvideo", (theirs, {".safetensors"}))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", ([str(packs)], set()))
    assert save_adaptor(adaptor, "motion", {}).parent == folder


def test_a_name_that_comes_over_a_wire_stands_for_all_files(adaptor: ModelPatcher, folder: Path) -> None:
    """The host tells no value of a wire beforehand."""
    seen = []
    for _ in range(2):
        seen += [file_state("magicvideo", None)] * 2
        save_adaptor(adaptor, "motion", {})
        folder_paths.filename_list_cache.clear()
    seen.append(file_state("magicvideo", None))
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]


def test_a_file_of_another_kind_is_refused_and_the_next_load_works(adaptor: ModelPatcher, folder: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1)}, folder / "lora.safetensors")
    with pytest.raises(AdaptorFileError, match=r"lora\.safetensors seems to be a LoRA"):
        load_adaptor("lora.safetensors")
    assert load_adaptor(save_adaptor(adaptor, "good", {}).name).model.config == adaptor.model.config


def test_an_adaptor_in_half_precision_acts_nearly_the_same(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    expected, plain = sample(bind(model, adaptor)), sample(model)
    adaptor.model.half()
    half = sample(bind(model, adaptor))
    assert (half - expected).abs().max() < 0.05 * (expected - plain).abs().max()


def test_a_partly_loaded_adaptor_gives_the_same_clip(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    """The host's low-memory way: layers stay behind and cast their weights when they are called."""
    expected = sample(bind(model, adaptor))
    bound = bind(model, adaptor)
    adaptor.load(torch.device("cpu"), lowvram_model_memory=1)
    assert adaptor.model.model_lowvram
    assert torch.equal(sample(bound), expected)


@pytest.mark.parametrize(("frames", "told"), [(1, True), (2, False)])
def test_a_batch_of_one_says_in_the_log_what_to_set(
    model: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture, frames: int, told: bool
) -> None:
    sample(bind(model, fresh_adaptor(model)), noise=torch.randn(frames, 4, 8, 8), latent=torch.zeros(frames, 4, 8, 8))
    assert ("Apply MagicVideo: the latent batch holds one frame" in caplog.text) is told
    assert ("set batch_size of Empty Latent Image" in caplog.text) is told
