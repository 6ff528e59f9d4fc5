"""The loop learns, changes only what it may, and stops as it should."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from toy import CONVOLUTION, Told, ToyDenoiser, toy_adaptor, toy_clips, toy_data, toy_run

from magicvideo.adaptor_unet.fps_embedding import NOT_TOLD
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.examples import Example
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.step_plan import PlannedClip, plan_step
from magicvideo.adaptor_unet.training.trainables import BaseLora, MovingAverage, Trainables, set_rates
from magicvideo.adaptor_unet.training.training_error import TrainingError

FAST = {"learning_rate": 3e-3, "still_share": 0.0, "warm_up": 5, "validate_every": 50, "sample_every": 0}


def test_training_lowers_the_held_out_loss_against_the_untrained_adaptor(tmp_path: Path) -> None:
    told = Told()
    assert toy_run(TrainingSettings(steps=150, batch=2, weighting="none", **FAST), tmp_path, told).train()
    losses = told.series("val")
    assert len(losses) == 4  # at the start, twice on the way, at the end
    assert losses[-1] < 0.97 * losses[0]
    assert told.series("val_high")[-1] < told.series("val_high")[0]


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_only_the_declared_tensors_change(tuning: str, tmp_path: Path) -> None:
    denoiser, adaptor = ToyDenoiser(), toy_adaptor()
    run = toy_run(TrainingSettings(steps=6, base_tuning=tuning, **FAST), tmp_path, denoiser=denoiser, adaptor=adaptor)
    base = {name: x.detach().clone() for name, x in denoiser.unet.named_parameters()}
    before = {name: x.detach().clone() for name, x in run.trainables.parameters.items()}
    run.train()
    assert {name.split(".")[0] for name in before} == ({"adaptor"} if tuning == "frozen" else {"adaptor", "base"})
    for name, parameter in denoiser.unet.named_parameters():
        assert torch.equal(parameter, base[name]) == (tuning != "full"), name
    still = [name for name, x in run.trainables.parameters.items() if torch.equal(x, before[name])]
    assert not [name for name in still if "spatial" not in name]  # the toy has no second set to train


def test_stills_see_the_adaptor_one_frame_at_a_time_and_base_stills_see_none(tmp_path: Path) -> None:
    denoiser = ToyDenoiser()
    settings = TrainingSettings(
        steps=8, batch=2, base_tuning="lora", **(FAST | {"still_share": 1.0, "validate_every": 0})
    )
    toy_run(settings, tmp_path, denoiser=denoiser).train()
    assert {(len(fps), adapted) for fps, adapted in denoiser.calls} == {(4, True)}
    denoiser.calls.clear()
    settings = TrainingSettings(steps=8, base_tuning="lora", base_still_share=1.0, **(FAST | {"validate_every": 0}))
    run = toy_run(settings, tmp_path / "base", denoiser=denoiser)
    before = {name: x.detach().clone() for name, x in run.trainables.adaptor.named_parameters()}
    run.train()
    assert {adapted for _, adapted in denoiser.calls} == {False}
    assert all(torch.equal(x, before[name]) for name, x in run.trainables.adaptor.named_parameters())


def test_a_clip_sees_its_own_frame_rate_and_a_still_picture_the_usual_one(tmp_path: Path) -> None:
    clip = toy_clips(1)[0]
    data = TrainingClips(
        MemoryClips((clip, LatentClip(clip.latents[:1], 0.0, clip.text))), (), torch.zeros_like(clip.text)
    )
    denoiser = ToyDenoiser()
    toy_run(TrainingSettings(steps=2, **FAST), tmp_path, denoiser=denoiser, clips=data).train()
    assert {fps for fps, _ in denoiser.calls} == {(clip.fps,), (8.0,)}


def test_clips_at_once_and_alone_give_the_same_step(tmp_path: Path) -> None:
    results = []
    for at_once in (1, 4):
        run = toy_run(TrainingSettings(steps=2, batch=4, clips_at_once=at_once, **FAST), tmp_path / str(at_once))
        run.train()
        results.append(run.trainables.adaptor.frame[CONVOLUTION].shift.detach())
    torch.testing.assert_close(results[0], results[1])


def test_clips_of_several_sizes_go_together_with_their_like(tmp_path: Path) -> None:
    clips = (*toy_clips(2), *toy_clips(2, size=6), toy_clips(1, frames=1)[0])
    data = TrainingClips(MemoryClips(clips), (), torch.zeros_like(clips[0].text))
    run = toy_run(TrainingSettings(clips_at_once=2, **FAST), tmp_path, clips=data)
    planned = [PlannedClip(item, seed) for seed, item in enumerate((0, 2, 4, 1, 3, 0, 2))]
    together = [[example.latents.shape for example in examples] for examples in run.examples.of(planned)]
    one, other, still = (clips[item].latents.shape for item in (0, 2, 4))
    assert together == [[one, one], [other, other], [still], [one], [other]]
    assert list(run.examples.of([])) == []


def drawn(settings: TrainingSettings, folder: Path, **others: object) -> list[Example]:
    """What chance gives the clips of a step."""
    run = toy_run(settings, folder, **others)
    batch = plan_step(0, run.settings, run.clips.train.groups).batch
    return [example for together in run.examples.of(batch) for example in together]


def test_captions_are_dropped_in_their_share(tmp_path: Path) -> None:
    settings, clips = TrainingSettings(caption_dropout=0.25, batch=400, **FAST), toy_data()
    dropped = sum(example.text is clips.empty_text for example in drawn(settings, tmp_path, clips=clips))
    assert dropped == pytest.approx(100, abs=25)


@pytest.mark.parametrize("guided", [True, False])
def test_without_a_caption_a_clip_has_no_frame_rate_either_where_guidance_is_to_lead_to_it(
    guided: bool, tmp_path: Path
) -> None:
    settings, clips = TrainingSettings(caption_dropout=0.5, fps_guidance=guided, batch=40, **FAST), toy_data()
    examples = drawn(settings, tmp_path, clips=clips)
    dropped = [example.fps == NOT_TOLD for example in examples if example.text is clips.empty_text]
    assert dropped == [guided] * len(dropped) and dropped
    assert all(example.fps != NOT_TOLD for example in examples if example.text is not clips.empty_text)
    assert toy_run(settings, tmp_path, clips=clips).trainables.adaptor.config.fps_guidance == guided


def test_timesteps_are_drawn_from_all_or_in_the_wanted_share_from_the_noisier_half(tmp_path: Path) -> None:
    levels = len(ToyDenoiser().sigmas)
    for share in (0.0, 0.6, 1.0):
        found = torch.stack([e.timesteps for e in drawn(TrainingSettings(high_noise_share=share, batch=400), tmp_path)])
        assert float((found >= levels // 2).float().mean()) == pytest.approx(0.5 + share / 2, abs=0.08)
        assert found.max() < levels and len(found.unique()) > levels // 3


def test_the_adaptor_says_how_its_frames_had_their_noise(tmp_path: Path) -> None:
    for levels in ("one_a_frame", "one_a_clip"):
        run = toy_run(TrainingSettings(steps=1, frame_noise_levels=levels, **FAST), tmp_path / levels)
        assert run.trainables.adaptor.config.frame_noise_levels == levels


@pytest.mark.parametrize("levels", ["one_a_frame", "clean_context", "finished_frames"])
def test_training_with_a_noise_level_a_frame_learns_to_use_finished_frames(levels: str, tmp_path: Path) -> None:
    told = Told()
    settings = TrainingSettings(steps=150, batch=2, weighting="none", frame_noise_levels=levels, **FAST)
    assert toy_run(settings, tmp_path, told).train()
    losses = told.series("val_given")
    assert losses[-1] < 0.97 * losses[0]


def test_finished_frames_have_noise_and_timesteps_of_their_own(tmp_path: Path) -> None:
    settings = TrainingSettings(batch=4, frame_noise_levels="finished_frames", context_timesteps=21)
    for example in drawn(settings, tmp_path):
        assert example.finished_noise.shape == example.noise.shape
        assert not torch.equal(example.finished_noise, example.noise)
        assert example.finished_timesteps.max() < 21
    together = TrainingSettings(frame_noise_levels="one_a_clip")
    assert all(example.finished_noise is None for example in drawn(together, tmp_path))


def test_a_clip_gets_the_noise_that_its_adaptor_is_for(tmp_path: Path) -> None:
    settings, clips = TrainingSettings(batch=2), toy_data()
    clips = TrainingClips(toy_clips(5, size=64), clips.held_out, clips.empty_text)
    for share, expected in ((0.36, 0.6), (0.0, 0.0)):
        for example in drawn(settings, tmp_path, clips=clips, adaptor=toy_adaptor(shared_noise=share)):
            assert float((example.noise[0] * example.noise[-1]).mean()) == pytest.approx(expected, abs=0.05)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_file(tmp_path: Path) -> None:
    clips = toy_clips(2)
    bad = LatentClip(torch.full_like(clips[0].latents, 1e30), 8.0, clips[0].text)
    data = TrainingClips(MemoryClips((*[clips[0]] * 7, bad)), (), torch.zeros_like(clips[0].text))
    exported: list[int] = []
    run = toy_run(
        TrainingSettings(steps=8, save_every=1, **FAST),
        tmp_path,
        clips=data,
        export=lambda step, final: exported.append(step),
    )
    with pytest.raises(TrainingError, match=r"The loss of step \d is (nan|inf) .* lower learning_rate"):
        run.train()
    assert exported == list(range(1, run.state.step + 1))
    assert all(parameter.isfinite().all() for parameter in run.trainables.parameters.values())


def test_a_failed_save_names_the_folder_and_leaves_the_state_before_intact(tmp_path: Path) -> None:
    def export(step: int, final: bool) -> None:
        if step == 4:
            raise OSError(28, "No space left on device")

    run = toy_run(TrainingSettings(steps=6, save_every=2, **FAST), tmp_path, export=export)
    with pytest.raises(TrainingError, match="Step 4 could not be saved in .*No space left"):
        run.train()
    again = toy_run(TrainingSettings(steps=6, save_every=2, **FAST), tmp_path)
    assert again.resume()
    assert again.train()


def test_asked_to_stop_it_saves_and_says_so(tmp_path: Path) -> None:
    exported: list[tuple[int, bool]] = []
    run = toy_run(
        TrainingSettings(steps=9, **FAST), tmp_path, Told(stop_at=3), export=lambda *call: exported.append(call)
    )
    assert not run.train()
    assert exported == [(3, True)]
    assert run.state.step == 3


def test_samples_are_taken_at_the_start_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    told = Told()
    settings = TrainingSettings(steps=7, **(FAST | {"sample_every": 3}))
    toy_run(settings, tmp_path, told, sample=lambda: torch.zeros(2, 4, 4, 3)).train()
    assert [done for done, _ in told.clips] == [0, 3, 6, 7]


def test_weights_and_averages_change_places_only_for_a_look_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, entered = toy_run(TrainingSettings(steps=6, **FAST | {"validate_every": 3}), tmp_path), []
    in_place = run.averages.in_place
    monkeypatch.setattr(run.averages, "in_place", lambda: entered.append(run.state.step) or in_place())
    run.train()
    assert entered == [0, 3, 6, 6], "three validations, and the export"


def test_gradients_do_not_live_through_looks_and_saves(tmp_path: Path) -> None:
    def looked(*_: object) -> torch.Tensor:
        assert not [name for name, x in run.trainables.parameters.items() if x.grad is not None]
        return torch.zeros(2, 4, 4, 3)

    settings = TrainingSettings(steps=2, save_every=1, **FAST | {"sample_every": 1})
    run = toy_run(settings, tmp_path, sample=looked, export=looked)
    assert run.train()


def test_what_is_exported_and_sampled_are_the_averaged_weights(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    adaptor = toy_adaptor()
    run = toy_run(
        TrainingSettings(steps=5, ema=0.9, **FAST),
        tmp_path,
        adaptor=adaptor,
        export=lambda step, final: seen.append(adaptor.frame[CONVOLUTION].scale.detach().clone()),
    )
    run.train()
    name = f"adaptor.frame.{CONVOLUTION}.scale"
    assert torch.equal(seen[-1], run.averages.values[name])
    assert not torch.equal(seen[-1], run.trainables.parameters[name])


def test_the_moving_average_by_hand() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.0]))
    average = MovingAverage({"x": parameter}, decay=0.5)
    for step, expected in enumerate([0.9, 0.9 + (1 - 2 / 11) * 0.1, None]):
        parameter.data.fill_(1.0)
        average.update(step)
        if expected is not None:
            torch.testing.assert_close(average.values["x"], torch.tensor([expected]))
    before = average.values["x"].clone()
    parameter.data.fill_(3.0)
    average.update(10_000)  # old enough for the full decay
    torch.testing.assert_close(average.values["x"], (before + 3.0) / 2)


def test_no_average_means_the_last_weights() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.0]))
    average = MovingAverage({"x": parameter}, decay=0.0)
    parameter.data.fill_(2.0)
    average.update(100)
    assert average.values["x"] == 2.0


def test_rates_rise_over_the_warm_up_and_fall_to_zero_along_a_cosine() -> None:
    settings = TrainingSettings(steps=110, warm_up=10, learning_rate=1.0, adaptor_rate_factor=4.0)
    optimiser = Trainables(toy_adaptor(), ToyDenoiser().unet, settings).optimiser(settings.rate(1))
    found = []
    for step in range(settings.steps):
        set_rates(optimiser, step, settings)
        found.append([group["lr"] for group in optimiser.param_groups])
    scale_shift, layers = zip(*found, strict=True)
    assert layers[0] == pytest.approx(1 / 11)
    assert layers[10] == 1.0
    assert layers[60] == pytest.approx(0.5)
    assert 0 < layers[-1] < 1e-3
    assert scale_shift == pytest.approx([4 * rate for rate in layers])


def test_scale_and_shift_are_never_decayed() -> None:
    settings = TrainingSettings(weight_decay=0.1, base_tuning="full")
    optimiser = Trainables(toy_adaptor(), ToyDenoiser().unet, settings).optimiser(1.0)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.0, 0.1, 0.1]


def test_an_untrained_lora_changes_nothing_and_a_trained_one_is_its_formula() -> None:
    unet, z = ToyDenoiser().unet, torch.randn(3, 8)
    layer = unet.get_submodule("input_blocks.1.1.transformer_blocks.0.attn1.to_q")
    plain = layer(z)
    lora = BaseLora(unet, rank=2)
    assert lora.places == [
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k",
    ]
    lora.attach(unet)
    assert torch.equal(layer(z), plain)
    torch.nn.init.normal_(lora.layers[0].up)
    tensors = lora.for_loaders()
    key = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    change = tensors[f"{key}.lora_up.weight"] @ tensors[f"{key}.lora_down.weight"] * tensors[f"{key}.alpha"] / 2
    torch.testing.assert_close(layer(z), plain + z @ change.mT)


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path) -> None:
    class Many:
        num_processes = 4

    with pytest.raises(ValueError, match="batch is 3, but there are 4 processes"):
        toy_run(TrainingSettings(batch=3), tmp_path, accelerator=Many())


@pytest.mark.parametrize("part", ["latents", "text"])
def test_values_of_a_clip_that_are_not_finite_are_named_and_no_rate_is_blamed(part: str, tmp_path: Path) -> None:
    clip = toy_clips(1)[0]
    broken = replace(clip, caption="a storm", **{part: getattr(clip, part) * float("nan")})
    data = TrainingClips(MemoryClips((broken,)), (clip,), torch.zeros_like(clip.text))
    settings = TrainingSettings(steps=1, caption_dropout=0.0, **FAST)
    with pytest.raises(TrainingError, match="Item 1 of the clips, with the caption 'a storm', has values") as caught:
        toy_run(settings, tmp_path, clips=data).train()
    assert "learning_rate" not in str(caught.value)


def test_an_empty_latent_is_named_and_not_learnt(tmp_path: Path) -> None:
    clip = toy_clips(1)[0]
    data = TrainingClips(MemoryClips((replace(clip, latents=clip.latents * 0, caption="a storm"),)), (clip,), clip.text)
    with pytest.raises(TrainingError, match="Item 1 of the clips, with the caption 'a storm', is empty"):
        toy_run(TrainingSettings(steps=1, **FAST), tmp_path, clips=data).train()


@pytest.mark.parametrize(("sources", "rate"), [(0, 1e-4), (3, 3e-5), (4, 1e-4)])
def test_the_rate_follows_from_the_number_of_clips_and_not_of_sub_clips(
    sources: int, rate: float, tmp_path: Path
) -> None:
    clips = replace(toy_data(count=24), sources=sources)
    run = toy_run(TrainingSettings(steps=1, precision="fp32"), tmp_path, clips=clips)
    assert {group["peak"] for group in run.optimiser.param_groups} == {rate, 8 * rate}


def test_the_usual_rate_is_that_of_most_clips_and_no_stills() -> None:
    clip = toy_clips(1)[0]
    rated = [replace(clip, fps=rate) for rate in (0.0, 0.0, 0.0, 12.0, 4.0, 6.0)]
    assert TrainingClips(MemoryClips(tuple(rated)), tuple(rated[3:4]), clip.text).usual_fps == 6.0
    many = MemoryClips((*[rated[3]] * 5000, *[rated[4]] * 4000))
    assert TrainingClips(many, (), clip.text).usual_fps == 12.0
    assert TrainingClips(MemoryClips(tuple(rated[:3])), (), clip.text).usual_fps == 8.0


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "make room there"), (errno.EROFS, "put that right")])
def test_a_save_that_fails_says_why(number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("magicvideo.adaptor_unet.training.run_state.save_tensors", broken)
    run = toy_run(TrainingSettings(steps=1, **FAST), tmp_path)
    with pytest.raises(TrainingError, match=f"{os.strerror(number)}.*{words} and resume"):
        run.save(final=True)
    monkeypatch.undo()

    def refused(*args: object) -> None:  # as safetensors tells the number, in its text alone
        raise SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")

    monkeypatch.setattr("magicvideo.adaptor_unet.whole_file.save_file", refused)
    with pytest.raises(TrainingError, match=f"cannot be written.*{words} and resume"):
        run.save(final=True)
