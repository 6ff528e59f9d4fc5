"""AdaIN over frames in the host: what frames come to, and when."""

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, noise_for, other_family
from torch import Tensor, nn
from ways import features, latents, with_adain

from magicvideo.adaptor_unet.adain import frame_statistics
from magicvideo.adaptor_unet.expand_latent import expand_latent
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind


def assert_like_the_first(z: Tensor) -> None:
    mean, deviation = frame_statistics(z)
    torch.testing.assert_close(mean, mean[:1].expand_as(mean), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(deviation, deviation[:1].expand_as(deviation), atol=1e-4, rtol=1e-3)


def test_every_predicted_latent_has_the_first_frames_statistics(model: ModelPatcher, sample: Sampler) -> None:
    """A sampler's last step ends on what the model predicts."""
    assert_like_the_first(sample(latents(model), 4))
    with pytest.raises(AssertionError):
        assert_like_the_first(sample(model, 4))


@pytest.mark.parametrize("adapted", [False, True])
def test_every_feature_has_the_first_frames_statistics_also_behind_an_adaptor(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, adapted: bool
) -> None:
    """Caught where the next layer takes it: at the first convolution, and at a transformer's sum of both attentions."""
    unet, caught = model.model.diffusion_model, {}
    block = unet.middle_block[1].transformer_blocks[0]

    def keep(name: str) -> object:
        return lambda module, args: caught.setdefault(name, []).append(args[0].clone()) and None

    def keep_normed(module: nn.Module, args: tuple) -> None:
        keep("transformer")(module, args)

    handles = [
        unet.input_blocks[1][0].in_layers[0].register_forward_pre_hook(keep("convolution")),
        block.norm1.register_forward_pre_hook(keep("before")),
        block.norm3.register_forward_pre_hook(keep_normed),
    ]
    bound = features(bind(model, adaptor) if adapted else model)
    sample(bound, 4, cfg=1.0, steps=1, size=8)  # of few pixels, statistics are rough
    for handle in handles:
        handle.remove()
    assert_like_the_first(caught["convolution"][0])
    assert_like_the_first((caught["transformer"][0] - caught["before"][0]).transpose(1, 2))


def test_half_the_strength_of_the_latents_is_half_the_way(model: ModelPatcher, sample: Sampler) -> None:
    none, half, whole = (sample(latents(model, strength=s), 4, steps=1) for s in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (none + whole) / 2, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("at", ["features", "latent"])
def test_it_acts_between_its_percentages_only(model: ModelPatcher, sample: Sampler, at: str) -> None:
    plain = sample(model, 3, steps=4)
    assert torch.equal(sample(with_adain(model, at=at, start_percent=1.0), 3, steps=4), plain)
    early, late = (
        sample(with_adain(model, at=at, start_percent=start, end_percent=end), 3, steps=4)
        for start, end in ((0.0, 0.4), (0.6, 1.0))
    )
    assert not torch.equal(early, plain) and not torch.equal(late, plain) and not torch.equal(early, late)


def test_two_nodes_one_for_each_place_both_act(model: ModelPatcher, sample: Sampler) -> None:
    both = sample(latents(features(model)), 3)
    assert torch.equal(both, sample(features(latents(model)), 3))
    assert not torch.equal(both, sample(features(model), 3)) and not torch.equal(both, sample(latents(model), 3))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"at": "pixels"}, "at of Frame AdaIN must be features or latent, found 'pixels'"),
        ({"strength": -0.1}, "strength of Frame AdaIN must lie in 0 to 1, found -0.1"),
        ({"end_percent": -1.0}, "start_percent and end_percent of Frame AdaIN must lie in 0 to 1"),
    ],
)
def test_unusable_settings_are_refused(model: ModelPatcher, settings: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        with_adain(model, **settings)


def test_another_family_and_a_batch_of_no_whole_clips_are_refused(model: ModelPatcher, sample: Sampler) -> None:
    other = other_family("Flux")
    with pytest.raises(ValueError, match="works with Stable Diffusion .* models, but this model is Flux"):
        with_adain(other)
    with pytest.raises(ValueError, match="frames_per_clip of Frame AdaIN is 3, but the latent batch holds 4"):
        sample(with_adain(model, at="latent", frames_per_clip=3), 4)


@pytest.mark.parametrize(
    ("at", "order", "told"),
    [("features", "frame by frame", True), ("latent", "frame by frame", False), ("features", "together", False)],
)
def test_features_of_a_given_first_frame_tell_nothing_frame_by_frame(
    model: ModelPatcher, sample: Sampler, at: str, order: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bound = (features if at == "features" else latents)(bind(model, fresh_adaptor(model), order=order))
    given = expand_latent({"samples": noise_for(1, seed=4)}, 3, keep_given=True)
    sample(bound, latent=given["samples"], noise=noise_for(3), noise_mask=given["noise_mask"])
    assert ("Frame AdaIN at features does next to nothing here" in caplog.text) is told
    caplog.clear()
    sample(bound, 3)
    assert not caplog.text
