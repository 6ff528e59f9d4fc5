"""A motion module as a teacher on the real host: what it predicts, what it samples, and that it leaves no trace."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import comfy.model_sampling
import comfy.sample
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from small_host import SMALL, build_model, conditioning, denoised_by_host
from ways import cross_frame

from graph_training import folders_below, graph_training, press_stop, server_progress
from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.hosted import adaptor_for, hosted_motion_module
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
from magicvideo.adaptor_unet.host.teacher import SAMPLER, SCHEDULER, HostTeacher, ModuleTeacher, check_frames
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.motion_module import with_tensors
from magicvideo.adaptor_unet.training.objective import NoisyFrames, Objective
from magicvideo.adaptor_unet.training.settings import RunSettings, TrainingSettings
from magicvideo.tools.motion_module_files import Size
from magicvideo.trainer import graph, plans
from magicvideo.trainer.motion_training import RunParts
from magicvideo.trainer.plans import AdaptorPlan, Teaching
from motion_modules import motion_module

pytestmark = pytest.mark.on_newest
FRAMES, DEVICE = 4, torch.device("cpu")


class PredictsV(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    pass


def predicting(kind: str) -> ModelPatcher:
    model = build_model()
    if kind == "v":
        model = model.clone()
        model.add_object_patch("model_sampling", PredictsV(model.model.model_config))
    return model


def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of two clips, and their texts."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2 * FRAMES, 4, 8, 8, generator=generator) * 3
    return x, torch.randn(2, 77, SMALL["context_dim"], generator=generator)


@pytest.mark.parametrize("kind", ["noise", "v"])
@pytest.mark.parametrize("variant", ["v2", "v1"])
def test_it_predicts_what_apply_motion_module_gives_at_the_same_sigma(kind: str, variant: str) -> None:
    """The learner's timestep of 14.6 is its last, the module's own is earlier; v1 has norms over frames."""
    model, module = predicting(kind), motion_module(variant)
    learner = TrainingUnet(model, DEVICE, torch.float32, checkpointing=True)
    teacher = ModuleTeacher(learner, model, module.model)
    bound = with_effect(model, MotionModuleEffect.of(model, motion_module=module))
    (x, text), level = noisy(), float(learner.sigmas[-1])
    assert float(teacher.denoiser.sigmas[-1]) > 20 > level
    found = teacher.clean(x, torch.full((2 * FRAMES,), level), text, (8.0, 8.0))
    for clip in (0, 1):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        expected = denoised_by_host(bound, x[rows], [[text[clip : clip + 1], {}]], level)
        torch.testing.assert_close(found[rows], expected, rtol=1e-3, atol=1e-3)
        assert (expected - denoised_by_host(model, x[rows], [[text[clip : clip + 1], {}]], level)).abs().max() > 1e-2


def test_the_learners_gradients_are_those_of_the_same_target_without_a_teacher_on_its_unet() -> None:
    model, found = build_model(), []
    x0, text = noisy()
    clips = NoisyFrames(x0[None, :FRAMES], torch.randn(1, FRAMES, 4, 8, 8), torch.full((1, FRAMES), 700))

    class Recorded:
        def __init__(self, teacher: ModuleTeacher) -> None:
            self.teacher, self.said = teacher, None

        def clean(self, *told: object) -> torch.Tensor:
            self.said = self.teacher.clean(*told) if self.said is None else self.said
            return self.said

    learner = TrainingUnet(model, DEVICE, torch.float32, checkpointing=True)
    teacher = Recorded(ModuleTeacher(learner, model, motion_module("v1").model))
    for _ in range(2):  # first with the teacher's hooks before the learner's, then with what it had said
        adaptor = adaptor_for(model, frames=FRAMES)
        Objective(learner, TrainingSettings()).loss(clips, text[:1], (8.0,), adaptor, teacher=teacher).sum().backward()
        found.append({name: parameter.grad for name, parameter in adaptor.named_parameters()})
    learner.close()
    assert all(torch.equal(x, found[1][name]) for name, x in found[0].items() if x is not None)
    assert not [name for name, one in learner.unet.named_modules() if one._forward_hooks or one._forward_pre_hooks]


def test_it_samples_what_the_stock_sampler_gives_and_tells_of_its_steps() -> None:
    model, module, told = build_model(), motion_module(), []
    (text, empty), shape = (conditioning(seed)[0][0][0] for seed in (1, 2)), (FRAMES, 4, 8, 8)
    teacher = HostTeacher.of(model, module, shape, steps=2, cfg=4.0)
    found = teacher.clip(text, empty, 7, lambda *step: told.append(step))
    bound = with_effect(model, MotionModuleEffect.of(model, motion_module=module))
    start = torch.zeros(shape)
    how = (bound, comfy.sample.prepare_noise(start, 7), 2, 4.0, SAMPLER, SCHEDULER)
    expected = comfy.sample.sample(*how, [[text[None], {}]], [[empty[None], {}]], start, disable_pbar=True, seed=7)
    torch.testing.assert_close(found, model.model.process_latent_in(expected))
    assert told == [(1, 2), (2, 2)]


def test_what_a_teacher_cannot_work_with_is_refused_before_a_clip_is_sampled() -> None:
    model = build_model()
    adaptor = adaptor_for(model, frames=FRAMES)

    def refused(words: str, module: ModelPatcher, model: ModelPatcher = model, **settings: object) -> None:
        plan = AdaptorPlan(adaptor, Teaching(model, module, ("a",), "", ""))
        with pytest.raises(ValueError, match=words):
            plan.check(RunSettings.from_values(settings))

    refused("33, but this motion module .AnimateDiff v2. has positions for 32", motion_module(), frames=33)
    refused("frames is 1, but", motion_module(), frames=1)
    refused("made for a UNet with 96, 96 channels", motion_module(size=Size((96, 96), depth=1)))
    refused("base_tuning is full, but a teacher is the frozen model", motion_module(), base_tuning="full")
    from small_host import FAMILIES

    kind, changes = FAMILIES["SDXL"]
    refused("works with SD1.5 models.* this model is SDXL", motion_module(), build_model(kind, **changes))
    adaptor.config = adaptor_for(model, frames=FRAMES, shared_noise=0.2).config
    refused("shared_noise is 0.2, but a motion module was trained", motion_module(), prediction_share=0.5)
    AdaptorPlan(adaptor, Teaching(model, motion_module(), ("a",), "", "")).check(RunSettings.from_values({}))
    check_frames(motion_module().model, 32)


@pytest.mark.parametrize(("frames", "told"), [(15, True), (16, False), (24, False)])
def test_clips_that_are_shorter_than_a_module_knows_are_told_of(
    frames: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model()
    plan = AdaptorPlan(adaptor_for(model, frames=frames), Teaching(model, motion_module(), ("a",), "", ""))
    plan.check(RunSettings.from_values({"frames": frames}))
    assert (f"frames is {frames}, but motion modules are trained with 16" in caplog.text) == told


SMALL_MODULE = motion_module(size=Size((32, 32), depth=1))
TAUGHT = {"teacher_clips": 1, "teacher_steps": 2, "teacher_cfg": 2.0, "steps": 2, "validate_every": 0}
TAUGHT |= {"sample_every": 0, "prediction_share": 0.5, "learning_rate": 1e-3}


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(tmp_path))
    with server_progress():
        yield tmp_path


def test_in_a_graph_it_teaches_by_prompts_alone_and_stopped_goes_on_where_it_was(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = HostTeacher.clip, [2]

    def clip(*given: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            press_stop()
        return real(*given)

    def run() -> None:
        asked = {"motion_module": SMALL_MODULE, "prompts": ("a square", "a disc", "a star")}
        graph_training(clips=False, **asked, **TAUGHT).train()

    with monkeypatch.context() as patch:
        patch.setattr(HostTeacher, "clip", clip)
        with pytest.raises(InterruptProcessingException):
            run()
        kept = {path: path.stat().st_mtime_ns for path in (folders / "cache" / "teacher").iterdir()}
        assert len(kept) == 1 and not (folders / "runs").exists()
        run()
        assert left[0] == -2, "the clip that was done is not sampled again"
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    first = load_file(folders / "adaptors" / "motion_00001.safetensors")
    assert any(x.count_nonzero() for name, x in first.items() if name.endswith("to_out.up.weight"))
    run()  # finished: it gives the same adaptor
    assert len(list((folders / "adaptors").iterdir())) == 1


def test_other_prompts_and_another_module_begin_another_run(folders: Path) -> None:
    def run(**asked: object) -> int:
        given = {"motion_module": SMALL_MODULE, "prompts": ("a square",)} | asked
        graph_training(clips=False, **given, **TAUGHT | {"steps": 1}).train()
        return len(list((folders / "adaptors").iterdir()))

    assert [run(), run(), run(prompts=("a disc",))] == [1, 1, 2]
    softer = {name: 0.9 * x for name, x in SMALL_MODULE.model.state_dict().items()}
    assert run(motion_module=hosted_motion_module(with_tensors(SMALL_MODULE.model.config, softer))) == 3


def test_a_teacher_that_is_never_asked_is_not_kept_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(plans, "MotionTraining", lambda parts, _: kept.append(parts.teacher is not None))
    plan = AdaptorPlan(None, Teaching(None, SMALL_MODULE, ("a square",), "", ""))
    for groups in ((3,), (2, 3)):
        for asked in ({"prediction_share": 0.5}, {}, {"prediction_share": 0.5, "teacher_share": 0.0}):
            clips = SimpleNamespace(train=SimpleNamespace(groups=groups))
            parts = RunParts(**dict.fromkeys(("model", "settings", "output", "accelerator", "watchers")), clips=clips)
            plan.training(parts, RunSettings.from_values(asked))
    assert kept == [True, False, True] + [True, False, False]


def test_it_samples_without_what_other_nodes_of_the_pack_have_put_on_the_model() -> None:
    """A run's adaptor learns what the module makes of the model, and the cache of its clips is named by these two."""
    model, module = build_model(), motion_module()
    text, empty = (conditioning(seed)[0][0][0] for seed in (1, 2))
    found = [
        HostTeacher.of(given, module, (2, 4, 8, 8), 2, 2.0).clip(text, empty, 3, lambda done, total: None)
        for given in (model, cross_frame(model))
    ]
    assert torch.equal(*found)
