"""Where in sampling an effect begins and ends follows from how the model is sampled, whichever order nodes stand in."""

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler
from ways import with_adain, with_cross_frame_attention

from magicvideo.adaptor_unet.host.motion_effect import bind

PART = {"start_percent": 0.3, "end_percent": 0.6}
KINDS = {
    "motion": lambda model, adaptor, part: bind(model, adaptor, **part),
    "frame by frame": lambda model, adaptor, part: bind(model, adaptor, order="frame by frame", **part),
    "cross-frame attention": lambda model, adaptor, part: with_cross_frame_attention(model, where="all", **part),
    "AdaIN at features": lambda model, adaptor, part: with_adain(model, at="features", **part),
    "AdaIN of latents": lambda model, adaptor, part: with_adain(model, at="latent", **part),
}


def with_other_sampling(model: ModelPatcher) -> ModelPatcher:
    """The model with other noise levels, as nodes for model sampling set them."""
    changed = model.clone()
    sampling = type(model.get_model_object("model_sampling"))(model.model.model_config)
    sampling.set_sigmas(sampling.sigmas**2)
    changed.add_object_patch("model_sampling", sampling)
    return changed


@pytest.mark.take_turns
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_for_model_sampling_may_stand_before_or_behind(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, kind: str
) -> None:
    effect = KINDS[kind]
    first, last = effect(with_other_sampling(model), adaptor, PART), with_other_sampling(effect(model, adaptor, PART))
    expected = sample(first, 3, cfg=1.5, steps=6)
    assert torch.equal(sample(last, 3, cfg=1.5, steps=6), expected)
    assert not torch.equal(expected, sample(effect(with_other_sampling(model), adaptor, {}), 3, cfg=1.5, steps=6))


def test_one_model_sampled_in_two_ways_keeps_nothing_of_either(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(model, adaptor, **PART)
    other = with_other_sampling(bound)
    expected = [sample(one, 3, cfg=1.0, steps=6) for one in (bound, other)]
    assert all(
        torch.equal(sample(one, 3, cfg=1.0, steps=6), x) for one, x in zip((bound, other), expected, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_its_noise_levels_are_asked_for_no_more_often_where_there_are_more_steps(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card waits for each answer."""
    bound, asked = KINDS[kind](model, adaptor, PART), []
    own = type(bound.get_model_object("model_sampling"))
    plain = own.percent_to_sigma
    monkeypatch.setattr(own, "percent_to_sigma", lambda one, percent: (asked.append(percent), plain(one, percent))[1])
    counts = []
    for steps in (1, 3):
        asked.clear()
        sample(bound, 2, cfg=1.0, steps=steps)
        counts.append([asked.count(percent) for percent in PART.values()])
    assert counts[0] == counts[1] and all(counts[0])
