"""A run in a graph is taken up again only by the inputs that it was begun with: all of them, to the last value.

But for settings that say what it costs and shows.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import comfy.hooks
import comfy.model_sampling
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from small_host import build_model

from graph_training import folders_below, graph_training, moving_square
from magicvideo.adaptor_unet.host.training_files import (
    HostEncoders,
    encoders_fingerprint,
    guidance_fingerprint,
    model_fingerprint,
)
from magicvideo.adaptor_unet.training.data.cache_files import contents
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.run_identity import MAY_CHANGE
from magicvideo.adaptor_unet.training.settings import RunSettings, TrainingSettings
from magicvideo.adaptor_unet.whole_file import content_name
from magicvideo.tools.make_random_checkpoint import write_random
from magicvideo.trainer import graph, graph_runs
from magicvideo.trainer.motion_training import Output, is_of_run
from magicvideo.trainer.node_inputs import WiredClips

CHECKPOINT = Path(__file__).resolve().parents[2] / ".demo" / "models" / "checkpoints" / "magicvideo_random.safetensors"
FAST = {"steps": 1, "sample_every": 0, "validate_every": 0}


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(tmp_path))
    yield


def files_of(root: Path, inputs: dict[str, object], tuning: str = "frozen") -> tuple[Output, bool]:
    return graph_runs.run_files(folders_below(root), "motion", inputs, tuning)


def wired(picture: torch.Tensor, **others: object) -> WiredClips:
    return WiredClips(**{"images": [picture], "captions": ["a square"]} | others)


def one_value(picture: torch.Tensor) -> torch.Tensor:
    changed = picture.clone()
    changed[-1, -2, -3, 1] += 1 / 255
    return changed


RED = moving_square()
OTHERS = {
    "a blue square that moves up": wired(moving_square((0.0, 0.0, 1.0), (-2, 0))),
    "one value of one pixel": wired(one_value(RED)),
    "another caption": wired(RED, captions=["a red square"]),
    "another frame rate": wired(RED, fps=9.0),
}


@pytest.fixture(scope="module")
def with_red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of a finished run of the red square."""
    root = tmp_path_factory.mktemp("red")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "training_folders", lambda: folders_below(root))
        graph_training(clips=wired(RED), **FAST).train()
    return root


@pytest.mark.on_oldest
@pytest.mark.parametrize("other", OTHERS)
def test_other_wired_clips_begin_another_run(other: str, with_red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(with_red))
    before = {*(with_red / "adaptors").iterdir()}
    graph_training(clips=OTHERS[other], **FAST).train()
    after = {*(with_red / "adaptors").iterdir()}
    assert before < after and len(after) == len(before) + 1
    graph_training(clips=wired(RED.clone()), **FAST).train()
    assert {*(with_red / "adaptors").iterdir()} == after


def sampled_as(model: ModelPatcher, predicts: type, zsnr: bool = False, **settings: float) -> ModelPatcher:
    """As a node sets what the model predicts and at which noise levels."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, predicts):
        pass

    changed = model.clone()
    sampling = Sampling(model.model.model_config, zsnr=zsnr)
    for name, value in settings.items():
        setattr(sampling, name, value)
    changed.add_object_patch("model_sampling", sampling)
    return changed


def test_what_a_model_predicts_and_its_noise_levels_are_part_of_it() -> None:
    model = build_model(model_channels=32)
    eps, v = comfy.model_sampling.EPS, comfy.model_sampling.V_PREDICTION
    made = [sampled_as(model, eps), sampled_as(model, v), sampled_as(model, eps, zsnr=True)]
    made.append(sampled_as(model, eps, sigma_data=0.5))
    names = [model_fingerprint(one) for one in made]
    assert len(set(names)) == len(names)
    assert model_fingerprint(sampled_as(model, v)) == names[1]


def test_one_weight_of_a_model_is_part_of_it() -> None:
    model = build_model(model_channels=32)
    before = model_fingerprint(model)
    with torch.no_grad():
        model.model.diffusion_model.out[2].weight[1, 2, 1, 1] += 1e-3
    assert model_fingerprint(model) != before


class Scaled:
    """A patch as other packs have them: an object with tensors and a place to be called."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def __call__(self, n: torch.Tensor, options: dict) -> torch.Tensor:
        return n * self.scale


def times(factor: float) -> Callable:
    return lambda n, k, v, options: (factor * n, k, v)


def test_attention_patches_of_other_nodes_are_part_of_it() -> None:
    model = build_model(model_channels=32)

    def patched(change: Callable[[ModelPatcher], object]) -> str:
        other = model.clone()
        change(other)
        return model_fingerprint(other)

    halves, others = torch.full((4,), 0.5), torch.tensor([0.5, 0.5, 0.5, 0.6])
    changes = [
        lambda one: None,
        lambda one: one.set_model_attn1_patch(times(0.5)),
        lambda one: one.set_model_attn1_patch(times(0.6)),
        lambda one: one.set_model_attn2_patch(times(0.5)),
        lambda one: one.set_model_attn1_patch(lambda n, k, v, options: (n, k, v)),
        lambda one: one.set_model_attn1_output_patch(Scaled(halves)),
        lambda one: one.set_model_attn1_output_patch(Scaled(others)),
        lambda one: one.set_model_attn1_replace(Scaled(halves), "middle", 0),
        lambda one: one.set_model_attn1_replace(Scaled(halves), "input", 1),
        lambda one: one.set_model_attn1_replace(partial(Scaled.__call__, Scaled(halves)), "input", 1),
    ]
    names = [patched(change) for change in changes]
    assert len(set(names)) == len(names)
    assert [patched(change) for change in changes] == names
    assert patched(lambda one: one.set_model_attn1_output_patch(Scaled(halves.clone()))) == names[5]


def test_a_patch_that_hides_what_it_holds_is_like_no_other_and_named(caplog: pytest.LogCaptureFixture) -> None:
    model = build_model(model_channels=32)
    hidden = iter([1.0])
    model.set_model_attn1_patch(lambda n, k, v, options: (next(hidden) * n, k, v))
    assert model_fingerprint(model) != model_fingerprint(model)
    assert "attn1_patch" in caplog.text and "list_iterator, which cannot be told from another" in caplog.text


def test_clips_that_are_held_out_of_a_folder_are_part_of_it() -> None:
    """A run gives their losses and a sample clip of the first one's caption."""
    given, train = graph_training(), MemoryClips((LatentClip(torch.ones(2, 4, 4, 4), 8.0, torch.ones(3, 5), "a"),))
    names = []
    for held in ({}, {"caption": "another"}, {"fps": 9.0}, {"latents": torch.full((2, 4, 4, 4), 2.0)}):
        clips = TrainingClips(train, (replace(train.clips[0], **held),), torch.zeros(3, 5))
        names.append(str(given._inputs(None, clips)))
    assert len(set(names)) == len(names)


def test_what_costs_less_or_shows_less_begins_no_other_run_and_what_is_learnt_otherwise_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def known(**settings: object) -> bool:
        told = RunSettings.from_values(settings).told(motion_module=False)
        return files_of(tmp_path, json.loads(json.dumps(told | {"model": "a"})))[1]

    folder = files_of(tmp_path, {})[0].folder
    folder.mkdir(parents=True)
    begun = RunSettings.from_values({}).told(motion_module=False) | {"model": "a"}
    (folder / graph_runs.RUN_FILE).write_text(json.dumps(begun))
    assert known() and not caplog.text
    others = {"clips_at_once": 2, "checkpointing": False, "base_precision": "fp8", "frames_at_once": 1, "keep": 1}
    others |= {"offload_activations": True, "offload_averages": True, "save_every": 7, "sample_every": 0}
    others |= {"sample_steps": 1, "sample_cfg": 1.0, "validate_every": 0}
    assert set(others) == set(MAY_CHANGE)
    assert all(known(**{name: value}) for name, value in others.items())
    assert "motion_00001 was begun with other settings of memory or looks" in caplog.text
    lasting = {"seed": 1, "steps": 501, "learning_rate": 1e-5, "frames": 8, "validation_clips": 1, "precision": "fp32"}
    assert not any(known(**{name: value}) for name, value in lasting.items())


@pytest.mark.parametrize("told", ["[" * 100_000, "null", "{"])
def test_a_run_that_does_not_say_which_it_is_is_left_alone(told: str, tmp_path: Path) -> None:
    output, _ = files_of(tmp_path, {})
    output.folder.mkdir(parents=True)
    (output.folder / graph_runs.RUN_FILE).write_text(told)
    assert files_of(tmp_path, {})[0].folder.name == "motion_00002"


def test_a_last_clip_that_is_none_is_not_given(tmp_path: Path) -> None:
    output, _ = files_of(tmp_path, {})
    sound, settings = torch.zeros(2, 8, 8, 3, dtype=torch.uint8), TrainingSettings()
    made_by = {graph_runs.MADE_BY: graph_runs.sample_settings(settings)}
    path = output.folder / graph_runs.SAMPLE_FILE
    path.parent.mkdir(parents=True)
    for frames in (sound[0], sound[..., :2], sound[:0], sound.float(), torch.tensor(1, dtype=torch.uint8)):
        save_file({"frames": frames.contiguous()}, path, made_by)
        assert graph_runs.last_sample(output, settings) is None
    for told, given in ((contents({"frames": sound}), True), (contents({"frames": sound + 1}), False)):
        save_file({"frames": sound}, path, made_by | told)
        assert (graph_runs.last_sample(output, settings) is not None) == given
    assert graph_runs.last_sample(output, replace(settings, sample_cfg=2.0)) is None


def test_a_file_that_a_wired_caption_names_is_part_of_it() -> None:
    given = wired(RED, captions=["embedding:mine"]).given
    names = [
        content_name(given(DataSettings(), SimpleNamespace(beside_words=lambda caption, held=held: held)))
        for held in ("", "one content", "another")
    ]
    assert len(set(names)) == 3


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the text encoder looks for embeddings."""
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def loaded(embeddings: Path) -> tuple:
    """MODEL, CLIP and VAE of the random checkpoint, of which tests change clones only."""
    if not CHECKPOINT.is_file():
        write_random(CHECKPOINT, "checkpoint")
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT), embedding_directory=str(embeddings))[:3]


@pytest.mark.slow
def test_embeddings_and_hooks_of_a_text_encoder_are_part_of_it(loaded: tuple, embeddings: Path) -> None:
    model, clip, vae = loaded
    encoders = HostEncoders(model, clip, vae, "")
    values = torch.ones(2, clip.tokenizer.clip_l.embedding_size)

    def named(size: float) -> str:
        save_file({"emb_params": size * values}, embeddings / "mine.safetensors")
        return encoders.beside_words("a clip, embedding:mine")

    assert named(1.0) == named(1.0) != named(2.0)
    assert encoders.beside_words("a clip") == encoders.beside_words("embedding:none") == ""
    key = next(name for name in clip.patcher.model.state_dict() if name.endswith("mlp.fc1.bias"))

    def hooked(strength: float, weight: float, *keyframes: float) -> str:
        other, hook = clip.clone(), comfy.hooks.WeightHook()
        for at in keyframes:
            hook.hook_keyframe.add(comfy.hooks.HookKeyframe(at, at))
        other.patcher.forced_hooks = comfy.hooks.HookGroup()
        other.patcher.forced_hooks.add(hook)
        bias = torch.full_like(clip.patcher.model.state_dict()[key], weight)
        other.patcher.add_hook_patches(hook, {key: ("diff", (bias,))}, strength)
        return encoders_fingerprint(model, other, vae)

    names = [encoders_fingerprint(model, clip, vae), hooked(1.0, 1.0), hooked(0.5, 1.0), hooked(1.0, 2.0)]
    names += [hooked(1.0, 1.0, 0.0, 0.5), hooked(1.0, 1.0, 0.0, 0.6)]
    assert len(set(names)) == len(names)
    assert hooked(0.5, 1.0) == names[2], "the same hook, made anew"


@pytest.mark.slow
def test_what_nodes_have_set_of_a_text_encoder_is_part_of_it(loaded: tuple) -> None:
    model, clip, vae = loaded
    key = next(name for name in clip.patcher.model.state_dict() if name.endswith("mlp.fc1.bias"))

    def changed(change: Callable[[comfy.sd.CLIP], object]) -> str:
        other = clip.clone()
        change(other)
        return encoders_fingerprint(model, other, vae)

    def lora(strength: float) -> Callable[[comfy.sd.CLIP], object]:
        bias = clip.patcher.model.state_dict()[key]
        return lambda other: other.add_patches({key: ("diff", (torch.ones_like(bias),))}, strength)

    def nothing(other: comfy.sd.CLIP) -> None:
        pass

    names = [changed(nothing), changed(lambda other: other.clip_layer(-2)), changed(lora(1.0)), changed(lora(0.5))]
    names.append(changed(lambda other: other.tokenizer_options.update(min_length=4)))
    assert len(set(names)) == len(names)
    assert changed(lora(0.5)) == names[3], "the same LoRA, loaded anew"


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_tuned_base_that_is_there_is_not_written_over(tuning: str, tmp_path: Path) -> None:
    theirs = tmp_path / ("loras" if tuning == "lora" else "checkpoints") / "motion_00001_base.safetensors"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    output, known = files_of(tmp_path, {}, tuning)
    assert output.adaptor.name == "motion_00002.safetensors" and not known
    assert files_of(tmp_path, {})[0].adaptor.name == "motion_00001.safetensors"


@pytest.mark.on_oldest
def test_an_adaptor_whose_states_are_gone_is_not_trained_over(tmp_path: Path) -> None:
    graph_training(**FAST).train()
    adaptor = tmp_path / "adaptors" / "motion_00001.safetensors"
    before = adaptor.read_bytes()
    for state in (tmp_path / "runs" / "motion_00001").glob("*.state"):
        state.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="motion_00001.safetensors is there already.* no sound state"):
        graph_training(**FAST).train()
    assert adaptor.read_bytes() == before


@pytest.mark.on_oldest
def test_an_adaptor_of_others_in_the_place_of_a_runs_own_is_not_written_over(tmp_path: Path) -> None:
    graph_training(**FAST).train()
    adaptor = tmp_path / "adaptors" / "motion_00001.safetensors"
    assert is_of_run(adaptor, "") and not is_of_run(adaptor, "another")
    save_file({"theirs": torch.ones(1)}, adaptor)
    before = adaptor.read_bytes()
    with pytest.raises(ValueError, match="motion_00001.safetensors was not made by the run in"):
        graph_training(**FAST).train()
    assert adaptor.read_bytes() == before


@pytest.mark.on_oldest
def test_a_finished_run_that_is_queued_again_says_that_nothing_is_trained(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    graph_training(**FAST).train()
    assert "nothing is trained" not in caplog.text
    graph_training(**FAST).train()
    assert "motion_00001.safetensors is finished: nothing is trained" in caplog.text


@pytest.mark.parametrize(("value", "words"), [(0.0, "Clip 2 .* all zeros"), (float("nan"), "Clip 2 .* not finite")])
def test_a_latent_that_nothing_can_be_learnt_from_is_refused(value: float, words: str) -> None:
    latents = [{"samples": torch.ones(2, 4, 4, 4)}, {"samples": torch.full((2, 4, 4, 4), value)}]
    with pytest.raises(ValueError, match=words):
        graph_training(clips=WiredClips(latents=latents, captions=["a"]), **FAST).train()


def test_what_nodes_set_for_guidance_is_part_of_a_teacher_and_of_nothing_else() -> None:
    model = build_model(model_channels=32)

    def rescaled(multiplier: float) -> ModelPatcher:
        other = model.clone()
        other.set_model_sampler_cfg_function(lambda args: multiplier * args["cond"])
        return other

    models = [model, rescaled(0.5), rescaled(0.7)]
    assert len({guidance_fingerprint(one) for one in models}) == 3
    assert guidance_fingerprint(rescaled(0.5)) == guidance_fingerprint(models[1])
    assert guidance_fingerprint(model) == "" and len({model_fingerprint(one) for one in models}) == 1
