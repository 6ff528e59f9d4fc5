"""Other nodes that look at the whole batch, or keep something from step to step, where frames come in several calls."""

import comfy.sample
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_advanced_samplers import SamplerLCMUpscale
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_sag import SelfAttentionGuidance
from small_host import Sampler, conditioning, noise_for

from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

CLOSE = 1e-4


def with_guidance(model: ModelPatcher) -> ModelPatcher:
    return SelfAttentionGuidance.execute(model, 0.5, 2.0)[0]


def with_cache(model: ModelPatcher, node: type = EasyCacheNode) -> ModelPatcher:
    return node.execute(model, 3.0, 0.0, 1.0, False)[0]


@pytest.mark.parametrize("chunk", [2, 3])
@pytest.mark.parametrize("order", ["node last", "node first"])
@pytest.mark.parametrize(
    ("other", "name"), [(with_guidance, "Self-Attention Guidance reads"), (with_cache, "EasyCache keeps")]
)
def test_what_cannot_stand_beside_causal_windows_is_refused_before_the_first_step(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, other: object, name: str, order: str, chunk: int
) -> None:
    made = with_causal_windows(bind(model, adaptor), chunk)
    made = other(made) if order == "node last" else with_causal_windows(bind(other(model), adaptor), chunk)
    calls = []
    with pytest.raises(ValueError, match=f"{name}.*chunk_frames of Causal Windows to 4 or more"):
        sample(made, 4, callback=lambda *step: calls.append(step))
    assert not calls


@pytest.mark.parametrize("other", [with_guidance, with_cache])
def test_a_batch_in_one_piece_is_sampled_with_them(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, other: object
) -> None:
    whole = other(bind(model, adaptor))
    assert torch.equal(sample(with_causal_windows(whole, 4), 4, steps=3), sample(whole, 4, steps=3))


def test_a_cache_of_the_whole_batch_is_right_in_chunks(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    cached = with_cache(bind(model, adaptor), LazyCacheNode)
    whole = sample(cached, 4, steps=5)
    assert relative(sample(with_causal_windows(cached, 2), 4, steps=5), whole) <= CLOSE
    assert relative(sample(bind(model, adaptor), 4, steps=5), whole) > CLOSE, "the cache should show"


@pytest.mark.parametrize(("node", "name"), [(EasyCacheNode, "EasyCache"), (LazyCacheNode, "LazyCache")])
def test_caches_are_refused_frame_by_frame(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, node: type, name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} keeps.*set order of Apply MagicVideo to together"):
        sample(with_cache(bind(model, adaptor, order="frame by frame"), node), 3)


@pytest.mark.parametrize("after_skip", [True, False])
def test_what_makes_features_smaller_while_the_noise_is_high_is_refused_frame_by_frame_alone(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, after_skip: bool
) -> None:
    shrunk = PatchModelAddDownscale.execute(model, 1, 2.0, 0.0, 0.5, after_skip, "bilinear", "bilinear")[0]
    with pytest.raises(ValueError, match="Kohya Deep Shrink.*set order of Apply MagicVideo to together"):
        sample(bind(shrunk, adaptor, order="frame by frame"), 4, size=8)
    together = sample(bind(shrunk, adaptor, order="together"), 4, size=8)
    assert (
        relative(sample(with_causal_windows(bind(shrunk, adaptor, order="together"), 2), 4, size=8), together) <= CLOSE
    )
    assert relative(sample(bind(model, adaptor, order="together"), 4, size=8), together) > CLOSE, "it should show"


def test_a_cache_of_another_pack_is_known_by_its_name(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    def first_block_cache(apply: object, given: dict) -> torch.Tensor:
        return apply(given["input"], given["timestep"], **given["c"])

    bound = bind(with_causal_windows(model, 2), adaptor)
    bound.set_model_unet_function_wrapper(first_block_cache)
    with pytest.raises(ValueError, match="A step cache .*first_block_cache.* keeps"):
        sample(bound, 3)


@pytest.mark.parametrize("other", [with_guidance, lambda model: APG.execute(model, 1.0, 5.0, 0.5)[0]])
def test_guidance_of_others_is_right_frame_by_frame(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, other: object
) -> None:
    """A frame is what it would be if no others came, and the sampling before leaves nothing."""
    moving = bind(model, adaptor, order="frame by frame")
    guided, noise = other(moving), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    long = sample(guided, noise=noise, latent=torch.zeros_like(noise), steps=3)
    short = sample(guided, noise=noise[:2], latent=torch.zeros(2, 4, 8, 8), steps=3)
    assert torch.equal(short, long[:2])
    assert not torch.equal(long, sample(moving, noise=noise, latent=torch.zeros_like(noise), steps=3))


def test_a_sampler_that_makes_latents_larger_is_refused_frame_by_frame_alone(
    model: ModelPatcher, adaptor: ModelPatcher
) -> None:
    sampler = SamplerLCMUpscale.execute(2.0, -1, "bilinear")[0]

    def upscaled(order: str) -> torch.Tensor:
        bound, noise = bind(model, adaptor, order=order), noise_for(4)
        sides = (conditioning(1), conditioning(2))
        with torch.inference_mode():
            given = (noise, 7.0, sampler, torch.tensor([10.0, 5.0, 2.0, 0.0]), *sides, torch.zeros_like(noise))
            return comfy.sample.sample_custom(bound, *given, disable_pbar=True)

    assert upscaled("together").shape[-1] == 2 * noise_for(4).shape[-1]
    with pytest.raises(ValueError, match="latents of 4x4 into .*set order to together"):
        upscaled("frame by frame")
