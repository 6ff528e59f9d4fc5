"""The method, through the host's own sampler: causal, clip by clip, the same however the host batches the calls."""

from collections.abc import Callable

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from small_host import FRAMES, Sampler, conditioning, noise_for, trained

from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.sites import find_sites


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).abs().max() / y.abs().max())


@pytest.mark.take_turns
@pytest.mark.parametrize("cfg", [1.0, 7.0])
@pytest.mark.parametrize("changed_from", [1, 3, 5, 7])
def test_later_noise_leaves_earlier_frames_bit_for_bit(
    model: ModelPatcher, sample: Sampler, cfg: float, changed_from: int
) -> None:
    """Inside the trained length and past it."""
    bound = bind(model, trained(fresh_adaptor(model, frames=6)))
    one = noise_for(9)
    other = torch.cat([one[:changed_from], noise_for(9, seed=5)[changed_from:]])
    before, after = sample(bound, 9, cfg, noise=one), sample(bound, 9, cfg, noise=other)
    assert torch.equal(before[:changed_from], after[:changed_from])
    assert not torch.isclose(before[changed_from:], after[changed_from:]).all(dim=(1, 2, 3)).any()


def test_earlier_noise_reaches_later_frames(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    bound = bind(model, adaptor)
    one = noise_for(FRAMES)
    other = torch.cat([noise_for(1, seed=5), one[1:]])
    before, after = sample(bound, noise=one), sample(bound, noise=other)
    assert not torch.isclose(before[1:], after[1:]).all(dim=(1, 2, 3)).any()


def test_clips_in_one_batch_do_not_mix(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    together = sample(bind(model, adaptor, frames_per_clip=4), 12, noise=noise_for(12))
    bound = bind(model, adaptor)
    apart = torch.cat([sample(bound, 4, noise=clip) for clip in noise_for(12).split(4)])
    assert relative(together, apart) < 1e-5
    assert relative(sample(bound, 12, noise=noise_for(12)), apart) > 1e-3, "one clip of 12 is another thing"


@pytest.mark.parametrize("frames_per_clip", [0, 3])
def test_conditionings_in_one_call_equal_conditionings_one_by_one(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, frames_per_clip: int
) -> None:
    bound = bind(model, adaptor, frames_per_clip=frames_per_clip)
    together = sample(bound)
    calls = count_rows(model)
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    assert relative(sample(bound), together) < 1e-5
    assert set(calls) == {FRAMES}, "the host should have been forced to split"


def count_rows(model: object) -> list[int]:
    rows: list[int] = []
    model.model.diffusion_model.register_forward_pre_hook(lambda unet, args: rows.append(args[0].shape[0]))
    return rows


def test_without_guidance_the_clip_still_has_all_its_frames(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    rows = count_rows(model)
    out = sample(bind(model, adaptor), cfg=1.0)
    assert set(rows) == {FRAMES} and out.shape[0] == FRAMES
    assert not torch.equal(out, sample(model, cfg=1.0))


def test_the_frame_rate_matters_to_a_trained_adaptor_only(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    assert not torch.equal(sample(bind(model, adaptor, fps=8)), sample(bind(model, adaptor, fps=24)))
    untrained = fresh_adaptor(model)
    assert torch.equal(sample(bind(model, untrained, fps=8)), sample(bind(model, untrained, fps=24)))


def test_scale_and_shift_act_behind_every_convolution_for_each_frame(model: ModelPatcher) -> None:
    adaptor = fresh_adaptor(model)
    unet = model.model.diffusion_model
    sites = [site for site in find_sites(unet) if site.kind == "convolution"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for site in sites:
            adaptor.model.frame[site.name].scale.normal_(1, 0.1, generator=generator)
            adaptor.model.frame[site.name].shift.normal_(0, 0.1, generator=generator)
    seen = outputs_of(unet, sites, lambda: unet_call(bind(model, adaptor), frames=4))
    for site in sites:
        got, z = seen[site.name]
        change = adaptor.model.frame[site.name]
        expected = rearrange(change.scale[:4], "f c -> f c 1 1") * z + rearrange(change.shift[:4], "f c -> f c 1 1")
        torch.testing.assert_close(got, expected)


def outputs_of(unet: torch.nn.Module, sites: list, run: Callable) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What each convolution hands on, and what it gives alone."""
    seen = {}

    def before(name: str) -> Callable:
        def hook(module: torch.nn.Module, args: tuple, out: torch.Tensor) -> None:
            seen[name] = (out, module._conv_forward(args[0], module.weight, module.bias))

        return hook

    wrapped = {}

    def late(name: str) -> Callable:
        # Registered in the call itself, behind the pack's own hooks.
        def hook(module: torch.nn.Module, args: tuple) -> None:
            wrapped[name] = module.register_forward_hook(before(name))

        return hook

    handles = [unet.get_submodule(site.name).register_forward_pre_hook(late(site.name)) for site in sites]
    run()
    for handle in [*handles, *wrapped.values()]:
        handle.remove()
    return seen


def unet_call(bound: object, frames: int) -> torch.Tensor:
    """One call of the UNet with the wrappers of a bound model, as the host makes it."""
    options = {"wrappers": bound.wrappers, "cond_or_uncond": [0], "sigmas": torch.ones(1)}
    context = conditioning(1)[0][0].repeat(frames, 1, 1)
    with torch.no_grad():
        return bound.model.diffusion_model(
            noise_for(frames), torch.full((frames,), 500.0), context=context, transformer_options=options
        )


def test_the_block_adds_adapted_spatial_and_temporal_attention(model: ModelPatcher) -> None:
    """x + S' (A1 + A2) + B' + T(norm x), with A1 self-attention and A2 cross-attention of the unchanged block."""
    adaptor = trained(fresh_adaptor(model))
    for name, parameter in adaptor.model.named_parameters():
        if name.startswith(("frame.", "fps.")):
            torch.nn.init.constant_(parameter, 1.0 if name.endswith("scale") else 0.0)
    name = "input_blocks.1.1.transformer_blocks.0"
    block = model.model.diffusion_model.get_submodule(name)
    taken = {}
    pre = block.register_forward_pre_hook(lambda m, args, kw: taken.update(x=args[0], **kw), with_kwargs=True)
    middle = block.norm3.register_forward_pre_hook(lambda m, args: taken.update(sum=args[0]))
    bound = bind(model, adaptor)
    unet_call(bound, frames=4)
    pre.remove(), middle.remove()
    with torch.no_grad():
        x, z = taken["x"], block.norm1(taken["x"])
        self_attention = block.attn1(z)
        text = block.attn2(block.norm2(x + self_attention), context=taken["context"])
        second, temporal = adaptor.model.spatial[name], adaptor.model.temporal[name]
        rows = (rearrange(value[:4], "f c -> f 1 c") for value in (second.scale, second.shift))
        scale, shift = rows
        expected = x + scale * (self_attention + text) + shift + temporal(z, FrameLayout.whole(1, 4))
    torch.testing.assert_close(taken["sum"], expected, rtol=1e-4, atol=1e-5)


def test_two_motions_in_a_row_add_up_in_any_order(model: ModelPatcher, sample: Sampler) -> None:
    one, other = trained(fresh_adaptor(model), seed=1), trained(fresh_adaptor(model), seed=2)
    both = sample(bind(bind(model, one), other))
    assert relative(sample(bind(bind(model, other), one)), both) < 1e-4
    assert relative(sample(bind(model, one)), both) > 1e-3
    twice_half = sample(bind(bind(model, one, strength=0.5), one, strength=0.5))
    assert relative(sample(bind(model, one, strength=1.0)), twice_half) < 1e-4


def test_a_motion_acts_only_between_its_percents(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    plain, full = sample(model, steps=6), sample(bind(model, adaptor), steps=6)
    early = sample(bind(model, adaptor, end_percent=0.5), steps=6)
    late = sample(bind(model, adaptor, start_percent=0.5), steps=6)
    results = [plain, full, early, late]
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])
    assert torch.equal(sample(bind(model, adaptor, start_percent=1.0), steps=6), plain)


def test_frames_past_the_trained_length_use_the_last_row_and_the_trained_span(
    model: ModelPatcher, sample: Sampler
) -> None:
    """Under equal noise, frames that see only frames of the last row come out equal; each block looks back by 3."""
    adaptor = trained(fresh_adaptor(model, frames=4))
    same = noise_for(1).repeat(36, 1, 1, 1)
    out = sample(bind(model, adaptor), 36, cfg=1.0, steps=1, noise=same)
    torch.testing.assert_close(out[35], out[30], rtol=1e-5, atol=1e-4)
    assert relative(out[0], out[3]) > 1e-4
