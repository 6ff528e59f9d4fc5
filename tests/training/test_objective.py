"""The loss: targets and weights against their formulas, noise that frames share."""

import pytest
import torch
from toy import CONVOLUTION, TIMESTEPS, TRANSFORMER, ToyDenoiser, toy_adaptor, toy_clips

from magicvideo.adaptor_unet.adaptor import VideoAdaptor
from magicvideo.adaptor_unet.frame_noise import clip_noise
from magicvideo.adaptor_unet.training.objective import NoisyFrames, Objective, target, weights
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.validation import validation_loss


def noised(
    predicts: str, sigma: float = 0.8
) -> tuple[ToyDenoiser, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    denoiser = ToyDenoiser(predicts)
    latents, noise = torch.randn(2, 3, 4, 5, 5)
    levels = torch.full((3,), sigma)
    return denoiser, latents, noise, denoiser.add_noise(latents, noise, levels), levels


def test_a_noise_model_is_to_put_out_the_noise() -> None:
    denoiser, latents, noise, x, sigma = noised("noise")
    wanted, slope = target(denoiser, latents, x, sigma)
    torch.testing.assert_close(wanted, noise)
    torch.testing.assert_close(slope, torch.full_like(slope, -0.8))


def test_a_v_model_is_to_put_out_v() -> None:
    denoiser, latents, noise, x, sigma = noised("v")
    wanted, _ = target(denoiser, latents, x, sigma)
    torch.testing.assert_close(wanted, (noise - 0.8 * latents) / (1 + 0.8**2) ** 0.5)


@pytest.mark.parametrize("predicts", ["noise", "v"])
def test_the_target_denoises_to_the_clean_latents(predicts: str) -> None:
    denoiser, latents, _, x, sigma = noised(predicts)
    wanted, _ = target(denoiser, latents, x, sigma)
    torch.testing.assert_close(denoiser.denoised(wanted, x, sigma), latents)


def test_weights_of_a_noise_model_by_hand() -> None:
    sigma = torch.tensor([0.1, 1.0, 10.0])
    snr = 1 / sigma**2
    torch.testing.assert_close(weights("none", sigma, -sigma, 5.0), torch.ones(3))
    torch.testing.assert_close(weights("min_snr", sigma, -sigma, 5.0), torch.tensor([0.05, 1.0, 1.0]))
    torch.testing.assert_close(weights("min_snr", sigma, -sigma, 5.0), snr.clamp(max=5) / snr)
    torch.testing.assert_close(weights("high_noise", sigma, -sigma, 20.0), torch.tensor([1.01, 2.0, 20.0]))


def test_weights_mean_the_same_for_a_v_model() -> None:
    """An error of v is ``sigma / sqrt(1 + sigma^2)`` times its size in the clean latents."""
    sigma = torch.tensor([0.1, 1.0, 10.0])
    slope, snr = -sigma / (1 + sigma**2) ** 0.5, 1 / sigma**2
    torch.testing.assert_close(weights("min_snr", sigma, slope, 5.0), snr.clamp(max=5) / (snr + 1))
    torch.testing.assert_close(weights("high_noise", sigma, slope, 20.0), (1 + sigma**2).clamp(max=20) / (1 + sigma**2))


@pytest.mark.parametrize("weighting", ["none", "min_snr", "high_noise"])
@pytest.mark.parametrize("predicts", ["noise", "v"])
def test_weights_have_a_mean_of_one_over_all_timesteps(weighting: str, predicts: str) -> None:
    found = Objective(ToyDenoiser(predicts), TrainingSettings(weighting=weighting)).weights
    assert found.shape == (TIMESTEPS,)
    torch.testing.assert_close(found.mean(), torch.tensor(1.0))


def test_high_noise_weighting_rises_with_the_noise() -> None:
    found = Objective(ToyDenoiser(), TrainingSettings(weighting="high_noise")).weights
    assert (found.diff() >= 0).all()
    assert found[-1] / found[0] > 10


def three_clips() -> tuple[Objective, NoisyFrames, torch.Tensor, tuple[float, ...], VideoAdaptor]:
    """Clips with a timestep of its own for each frame, and an adaptor that is not the identity."""
    clips, adaptor = toy_clips(3), toy_adaptor()
    for weight in (adaptor.fps.outer.weight, adaptor.temporal[TRANSFORMER].to_out.up.weight):
        torch.nn.init.normal_(weight)
    torch.nn.init.normal_(adaptor.frame[CONVOLUTION].shift)
    latents = torch.stack([clips[i].latents for i in range(3)])
    timesteps = torch.randint(TIMESTEPS, latents.shape[:2])
    text, fps = torch.stack([clips[i].text for i in range(3)]), tuple(clips[i].fps for i in range(3))
    return (
        Objective(ToyDenoiser(), TrainingSettings()),
        NoisyFrames(latents, torch.randn_like(latents), timesteps),
        text,
        fps,
        adaptor,
    )


def some(clips: NoisyFrames, rows: slice, frames: slice = slice(None)) -> NoisyFrames:
    return NoisyFrames(*(x[rows, frames] for x in (clips.latents, clips.noise, clips.timesteps)))


def test_clips_in_one_batch_have_the_errors_they_have_alone() -> None:
    objective, clips, text, fps, adaptor = three_clips()
    finished = NoisyFrames(clips.latents, torch.randn_like(clips.noise), torch.zeros_like(clips.timesteps))
    for given in (None, finished):
        together = objective.loss(clips, text, fps, adaptor, given)
        alone = [
            objective.loss(
                some(clips, slice(i, i + 1)),
                text[i : i + 1],
                fps[i : i + 1],
                adaptor,
                given and some(given, slice(i, i + 1)),
            )
            for i in range(3)
        ]
        torch.testing.assert_close(together, torch.cat(alone))


def test_a_frame_given_finished_ones_has_the_error_that_it_has_as_the_last_of_them() -> None:
    """All frames in one call, each beside the finished ones before it, against one call a frame."""
    objective, clips, text, fps, adaptor = three_clips()
    finished = NoisyFrames(clips.latents, torch.randn_like(clips.noise), torch.full_like(clips.timesteps, 3))
    at_once = objective.errors(clips, text, fps, adaptor, finished)
    for frame in range(clips.latents.shape[1]):
        rows = [
            torch.cat([getattr(finished, name)[:, :frame], getattr(clips, name)[:, frame : frame + 1]], dim=1)
            for name in ("latents", "noise", "timesteps")
        ]
        alone = objective.errors(NoisyFrames(*rows), text, fps, adaptor)[:, -1]
        torch.testing.assert_close(at_once[:, frame], alone)
    together = objective.errors(clips, text, fps, adaptor)
    torch.testing.assert_close(at_once[:, 0], together[:, 0])  # the first frame is given none
    assert not torch.allclose(at_once[:, 1:], together[:, 1:])


def test_each_frame_counts_by_its_own_noise_level() -> None:
    objective, clips, text, fps, adaptor = three_clips()
    errors = objective.errors(clips, text, fps, adaptor)
    expected = (errors * objective.weights[clips.timesteps]).mean(dim=1)
    torch.testing.assert_close(objective.loss(clips, text, fps, adaptor), expected)


def test_shared_noise_keeps_the_variance_and_correlates_the_frames_with_the_first() -> None:
    noise = clip_noise((3, 4, 200, 200), torch.Generator().manual_seed(0), shared=0.36)
    assert noise.var() == pytest.approx(1.0, abs=0.02)
    assert (noise[0] * noise[2]).mean() == pytest.approx(0.6, abs=0.02)
    assert (noise[1] * noise[2]).mean() == pytest.approx(0.36, abs=0.02)
    own = clip_noise((2, 4, 200, 200), torch.Generator().manual_seed(0), shared=0.0)
    assert (own[0] * own[1]).mean() == pytest.approx(0.0, abs=0.02)


def test_validation_has_the_noise_that_the_adaptor_is_trained_with() -> None:
    class Heard(Objective):
        def errors(self, clips: NoisyFrames, *others: object) -> torch.Tensor:
            heard.append(float((clips.noise[0, 0] * clips.noise[0, 1]).mean()))
            return super().errors(clips, *others)

    clips = toy_clips(2, size=64).clips
    for share, expected in ((0.36, 0.6), (0.0, 0.0)):
        heard: list[float] = []
        validation_loss(Heard(ToyDenoiser(), TrainingSettings()), clips, toy_adaptor(shared_noise=share))
        assert heard == pytest.approx([expected] * 16, abs=0.05)  # together, and given finished frames


def test_validation_tells_frames_together_from_frames_given_finished_ones() -> None:
    objective, _, _, _, adaptor = three_clips()
    clips = toy_clips(2).clips
    found = validation_loss(objective, clips, adaptor)
    assert set(found) == {f"{name}{half}" for name in ("val", "val_given") for half in ("", "_high", "_low")}
    for name in ("val", "val_given"):
        assert found[name] == pytest.approx((found[f"{name}_high"] + found[f"{name}_low"]) / 2)
    assert found["val"] != pytest.approx(found["val_given"])
    assert found == validation_loss(objective, clips, adaptor)
    assert set(validation_loss(objective, clips, None)) == {"val", "val_high", "val_low"}
