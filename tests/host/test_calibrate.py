"""An adaptor computed from a reference clip."""

from pathlib import Path

import comfy.model_management
import comfy.samplers
import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from small_host import Sampler, conditioning, other_family, trained
from torch import Tensor

from magicvideo.adaptor_unet.adain import frame_statistics
from magicvideo.adaptor_unet.checkpoint import load, save
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.calibrate import ClipAtLevels, calibrated_adaptor, levels_between
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor, hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

TEXT = conditioning(1)


def clip(frames: int = 5, flicker: float = 0.5) -> dict[str, Tensor]:
    """One picture whose frames differ in contrast and tone alone."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 4, 8, 8, generator=generator)
    contrast, tone = (flicker * torch.randn(frames, 4, 1, 1, generator=generator) for _ in range(2))
    return {"samples": picture * contrast.exp() + tone}


def spread_of_last_features(model: ModelPatcher, latent: dict[str, Tensor]) -> float:
    """How far apart the frames' statistics lie behind the last block, when the model sees the noised clip."""
    caught = []
    handle = model.model.diffusion_model.out[0].register_forward_pre_hook(lambda layer, args: caught.append(args[0]))
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": TEXT})
    samples = latent["samples"]
    sampler = ClipAtLevels(lambda: None)
    guider.sample(torch.zeros_like(samples), samples, sampler, levels_between(model, 3), disable_pbar=True, seed=5)
    handle.remove()
    return float(sum(x.std(0).mean() for z in caught for x in frame_statistics(z)))


@pytest.mark.usefixtures("either_layers")
def test_the_clip_it_was_made_from_gets_frames_that_are_alike(model: ModelPatcher) -> None:
    latent = clip()
    before, after = (
        spread_of_last_features(bound, latent)
        for bound in (model, bind(model, calibrated_adaptor(model, latent, TEXT)))
    )
    assert after < 0.7 * before


def test_a_clip_of_one_picture_gives_the_identity(model: ModelPatcher, sample: Sampler) -> None:
    adaptor = calibrated_adaptor(model, clip(flicker=0.0), TEXT)
    for name, value in adaptor.model.state_dict().items():
        torch.testing.assert_close(value, torch.full_like(value, float(name.endswith("scale"))), atol=1e-4, rtol=0)
    assert relative(sample(bind(model, adaptor), 5), sample(model, 5)) < 1e-3


def test_it_has_s_and_b_alone_with_the_clips_frames_and_leaves_the_first_frame(
    model: ModelPatcher, sample: Sampler
) -> None:
    adaptor = calibrated_adaptor(model, clip(5), TEXT).model
    assert adaptor.config == config_for(model, frames=5, parts=("frame", "spatial"))
    for name, value in adaptor.state_dict().items():
        identity = torch.full_like(value, float(name.endswith("scale")))
        assert torch.equal(value[0], identity[0]) and not torch.equal(value, identity), name
    bound = bind(model, calibrated_adaptor(model, clip(5), TEXT))
    assert torch.equal(sample(bound, 5)[0], sample(model, 5)[0]) and not torch.equal(sample(bound, 5), sample(model, 5))


def test_on_a_model_that_samples_frame_by_frame_it_is_that_of_the_whole_clip(
    model: ModelPatcher, adaptor: ModelPatcher
) -> None:
    """What is set on the model acts; the clip is there already, so that no frame waits for another."""
    made = [
        calibrated_adaptor(bind(model, adaptor, order=order), clip(), TEXT).model.state_dict()
        for order in ("frame by frame", "together")
    ]
    assert all(value.isfinite().all() and torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_the_same_inputs_give_the_same_adaptor_and_other_seeds_another(model: ModelPatcher) -> None:
    first, again, other = (calibrated_adaptor(model, clip(), TEXT, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_given_adaptor_keeps_all_but_s_and_b(model: ModelPatcher, adaptor: ModelPatcher) -> None:
    given = trained(fresh_adaptor(model, frames=4))
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    made = calibrated_adaptor(model, clip(5), TEXT, adaptor=given).model
    assert made.config == given.model.config
    for name, value in made.state_dict().items():
        assert torch.equal(before[name], given.model.state_dict()[name]), "the given one stays as it was"
        assert torch.equal(value, before[name]) == (not name.startswith(("frame.", "spatial."))), name


def test_saved_and_loaded_it_is_the_same(model: ModelPatcher, tmp_path: Path) -> None:
    made = calibrated_adaptor(model, clip(), TEXT).model
    loaded = load(save(made, tmp_path / "calibrated.safetensors"))
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made.state_dict().items())


def test_an_adaptor_that_is_made_lies_where_the_host_counts_it(
    model: ModelPatcher, adaptor: ModelPatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = torch.device("meta")  # in the place of a second device
    monkeypatch.setattr(comfy.model_management, "unet_offload_device", lambda: elsewhere)
    for made in (hosted(adaptor.model), calibrated_adaptor(model, clip(), TEXT)):
        assert made.offload_device == elsewhere
        assert {tensor.device for tensor in made.model.state_dict().values()} == {elsewhere}
    assert {tensor.device.type for tensor in adaptor.model.state_dict().values()} == {"cpu"}


def test_chunks_give_the_adaptor_of_the_whole_clip(model: ModelPatcher) -> None:
    whole = calibrated_adaptor(model, clip(7), TEXT).model.state_dict()
    chunks = calibrated_adaptor(with_causal_windows(model, 3), clip(7), TEXT).model.state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(chunks[name], value, atol=1e-3, rtol=1e-3)


def test_several_conditionings_and_areas_count_with_their_mean(model: ModelPatcher) -> None:
    text = conditioning(1, area=(8, 4, 0, 0)) + conditioning(2)
    made = calibrated_adaptor(model, clip(), text).model.state_dict()
    assert all(value.isfinite().all() for value in made.values())


@pytest.mark.parametrize("stopped", [False, True])
def test_the_model_and_the_clip_stay_as_they_were(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    plain, latent = sample(model), clip()
    before = latent["samples"].clone()
    if stopped:
        calls = []

        def stop(*args: object) -> None:
            calls.append(args)
            if len(calls) == 2:
                raise comfy.model_management.InterruptProcessingException

        handle = model.model.diffusion_model.middle_block[0].register_forward_hook(stop)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            calibrated_adaptor(model, latent, TEXT)
        handle.remove()
    else:
        calibrated_adaptor(model, latent, TEXT)
    assert torch.equal(latent["samples"], before) and torch.equal(sample(model), plain)
    assert not [name for name, module in model.model.diffusion_model.named_modules() if module._forward_hooks]


@pytest.mark.parametrize(
    ("latent", "steps", "told"),
    [
        ({"samples": torch.zeros(5, 4, 8, 8)}, 4, r"needs the latents of a clip.*found an empty latent of shape \(5, "),
        (clip(1), 4, r"two frames or more.*found a latent of shape \(1, 4, 8, 8\)"),
        ({"samples": torch.ones(1, 16, 5, 8, 8)}, 4, r"needs the latents of a clip.*\(1, 16, 5, 8, 8\)"),
        (
            {"samples": torch.ones(5, 16, 8, 8)},
            4,
            "Calibrate Adaptor was given latents .* of 16 channels.* works with 4",
        ),
        (clip(), 1, "steps of Calibrate Adaptor must be 2 or more, found 1"),
    ],
)
def test_what_is_no_clip_is_refused(model: ModelPatcher, latent: dict, steps: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        calibrated_adaptor(model, latent, TEXT, steps)


def test_an_adaptor_of_more_frames_and_another_family_of_models_are_refused_before_the_pass(
    model: ModelPatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.samplers.CFGGuider, "sample", None)
    with pytest.raises(ValueError, match="adaptor has 16 frames, but the reference clip only 5"):
        calibrated_adaptor(model, clip(), TEXT, adaptor=fresh_adaptor(model))
    with pytest.raises(ValueError, match="works with Stable Diffusion .* models, but this model is Flux"):
        calibrated_adaptor(other_family("Flux"), clip(), TEXT)


def test_guidance_of_other_nodes_has_no_part_in_it_and_a_step_cache_is_refused(model: ModelPatcher) -> None:
    plain = calibrated_adaptor(model, clip(), TEXT).model.state_dict()
    for guided in (SelfAttentionGuidance.execute(model, 0.5, 2.0), PerturbedAttentionGuidance.execute(model, 3.0)):
        found = calibrated_adaptor(guided[0], clip(), TEXT).model.state_dict()
        assert all(torch.equal(found[name], plain[name]) for name in plain)
    cached = EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False)[0]
    with pytest.raises(
        ValueError, match="EasyCache keeps .* would not see each level of noise. Connect the model without"
    ):
        calibrated_adaptor(cached, clip(), TEXT)
