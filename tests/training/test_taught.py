"""What a run learns from a teacher: shares of the clips, whose prediction is wanted, and what a resumed run shares."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import ToyDenoiser, toy_adaptor, toy_clips, toy_data, toy_run

from magicvideo.adaptor_unet.training.data.latent_clip import JoinedSets, TrainingClips
from magicvideo.adaptor_unet.training.estimate import TimedPass, Work
from magicvideo.adaptor_unet.training.objective import NoisyFrames, Objective, target
from magicvideo.adaptor_unet.training.run_state import StateError
from magicvideo.adaptor_unet.training.settings import MotionModuleSettings, RunSettings, TrainingSettings
from magicvideo.adaptor_unet.training.step_plan import plan_step

QUICK = {"steps": 3, "sample_every": 0, "validate_every": 0, "still_share": 0.0, "batch": 4, "clips_at_once": 4}


class Halving:
    """A teacher that takes half of what it is shown for the clean clips; notes how often, and at which levels."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def clean(self, x: Tensor, sigma: Tensor, text: Tensor, fps: tuple[float, ...]) -> Tensor:
        self.seen.append(sigma.reshape(len(fps), -1))
        return x / 2


def taught_clips() -> TrainingClips:
    own = toy_data()
    return replace(own, train=JoinedSets((own.train, toy_clips(4, seed=9))), taught=True)


@pytest.mark.parametrize(("share", "teachers"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_the_share_of_the_teachers_clips_is_kept_step_by_step(share: float, teachers: int) -> None:
    settings = TrainingSettings(batch=4)
    batch = [clip for step in range(10) for clip in plan_step(step, settings, (5, 3), share).batch]
    assert sum(clip.taught for clip in batch) == teachers
    assert all((clip.item >= 5) == clip.taught and clip.item < 8 for clip in batch)
    if share == 0.5:
        assert {clip.item for clip in batch} == set(range(8))


def test_alone_the_teacher_gives_all_clips_and_without_one_nothing_changes() -> None:
    settings = TrainingSettings(batch=6)
    alone, without = plan_step(0, settings, (6,), 0.25).batch, plan_step(0, settings, (6,)).batch
    assert all(clip.taught for clip in alone) and not any(clip.taught for clip in without)
    assert [(clip.item, clip.seed) for clip in alone] == [(clip.item, clip.seed) for clip in without]


@pytest.mark.parametrize("predicts", ["noise", "v"])
def test_the_output_that_is_wanted_gives_the_teachers_clean_clips(predicts: str) -> None:
    denoiser, generator = ToyDenoiser(predicts), torch.Generator().manual_seed(1)
    objective = Objective(denoiser, TrainingSettings())
    latents, noise = torch.randn(2, 1, 4, 4, 4, 4, generator=generator)
    clips = NoisyFrames(latents, noise, torch.full((1, 4), 60))
    text = torch.randn(1, 3, 6, generator=generator)
    found = objective.errors(clips, text, (8.0,), toy_adaptor(), teacher=Halving())
    sigma = denoiser.sigmas[torch.full((4,), 60)]
    x = denoiser.add_noise(latents[0], noise[0], sigma)
    out = denoiser.predict(x, sigma, text, (8.0,), toy_adaptor())
    wanted, _ = target(denoiser, x / 2, x, sigma)
    torch.testing.assert_close(denoiser.denoised(wanted, x, sigma), x / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[0], ((out - wanted) ** 2).mean((1, 2, 3)))
    assert not torch.allclose(found, objective.errors(clips, text, (8.0,), toy_adaptor()))


@pytest.mark.parametrize("levels", ["one_a_clip", "clean_context", "finished_frames"])
def test_the_teacher_is_asked_at_one_level_a_clip_and_for_its_share_alone(levels: str, tmp_path: Path) -> None:
    for share, asked in ((0.0, 0), (0.5, None), (1.0, 6)):
        teacher, shares = Halving(), MotionModuleSettings(prediction_share=share)
        settings = TrainingSettings(**QUICK, frame_noise_levels=levels)
        run = toy_run(settings, tmp_path / f"{share}", clips=taught_clips(), teacher=teacher, shares=shares)
        assert run.train()
        clips = [level for sigma in teacher.seen for level in sigma]
        assert len(clips) == asked if asked is not None else 0 < len(clips) < 6
        assert all(len(level.unique()) == 1 for level in clips)


def test_a_run_with_a_teacher_goes_on_to_the_same_weights_and_with_its_own_shares_alone(tmp_path: Path) -> None:
    def run(folder: str, share: float = 0.5, **changes: int) -> object:
        shares = MotionModuleSettings(prediction_share=share)
        settings = TrainingSettings(**QUICK | changes)
        return toy_run(settings, tmp_path / folder, clips=taught_clips(), teacher=Halving(), shares=shares)

    whole, first = run("whole", save_every=2), run("parts", save_every=2)
    whole.train()
    first.watcher.stop_at = 2
    assert not first.train()
    with pytest.raises(StateError, match=r"prediction_share 0.5, this one has 0.25"):
        run("parts", share=0.25).resume()
    second = run("parts")
    assert second.resume() and second.state.step == 2 and second.train()
    for name, x in whole.trainables.parameters.items():
        assert torch.equal(x, second.trainables.parameters[name])


def test_settings_of_a_motion_module_are_told_only_where_there_is_one() -> None:
    settings = RunSettings.from_values({"teacher_clips": 2})
    assert settings.told(motion_module=True)["motion_module"]["teacher_clips"] == 2
    assert set(settings.told(motion_module=False)) == {"clips", "adaptor", "training"}
    with pytest.raises(ValueError, match="teacher_fps must be .*, found 0"):
        RunSettings.from_values({"teacher_fps": 0.0})


def test_a_motion_lora_is_trained_at_one_level_a_clip_and_without_stills() -> None:
    settings = RunSettings.from_values({"train": "motion_lora"})
    assert (settings.training.frame_noise_levels, settings.training.still_share) == ("one_a_clip", 0.0)
    for name, value in (
        ("frame_noise_levels", "clean_context"),
        ("still_share", 0.1),
        ("stills", True),
        ("base_tuning", "lora"),
        ("start", "a.safetensors"),
    ):
        with pytest.raises(ValueError, match=f"{name} is .* but a MotionLoRA is trained with"):
            RunSettings.from_values({"train": "motion_lora", name: value})


@pytest.mark.parametrize(
    "setting",
    [
        {"shared_noise": 0.2},
        {"rotary": True},
        {"parts": ["frame"]},
        {"init": "random"},
        {"attention_at": "every_block"},
        {"fps_guidance": True},
    ],
)
def test_settings_of_adaptors_are_refused_for_a_motion_lora(setting: dict[str, object]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name} is of adaptors, but a MotionLoRA is trained: leave it out"):
        RunSettings.from_values({"train": "motion_lora"} | setting)


def test_a_teachers_pass_is_foretold() -> None:
    took, settings = TimedPass(0.0, 1.0), TrainingSettings(checkpointing=False, frame_noise_levels="one_a_clip")
    plain, taught = (Work(settings, 10, 1, 2, 1, 0, 0, share).training(took) for share in (0.0, 0.5))
    assert taught == pytest.approx(plain + 2 * 0.5 * 10)
