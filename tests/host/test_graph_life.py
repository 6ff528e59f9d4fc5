"""Life in a graph: other nodes before, after and beside Apply MagicVideo."""

import logging

import comfy.context_windows
import comfy.hooks
import comfy.lora
import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from small_host import SIZE, Sampler, build_model, conditioning, trained
from stock_windows import with_windows
from ways import untrained

from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative


def lora_for(model: ModelPatcher) -> dict:
    """Low-rank changes to a few weights, in the host's own patch form."""
    generator = torch.Generator().manual_seed(3)
    patches = {}
    for name, weight in model.model.diffusion_model.named_parameters():
        if name.endswith(("attn1.to_q.weight", "attn2.to_out.0.weight", "out_layers.3.weight")):
            up = torch.randn(weight.shape[0], 2, generator=generator) * 0.1
            down = torch.randn(2, weight[0].numel(), generator=generator) * 0.1
            patches[f"diffusion_model.{name}"] = ("diff", ((up @ down).reshape(weight.shape),))
    return patches


def with_lora(model: ModelPatcher) -> ModelPatcher:
    patched = model.clone()
    assert patched.add_patches(lora_for(model), 0.7)
    return patched


def test_a_lora_before_after_or_merged_gives_the_same_clip(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    plain = sample(bind(model, adaptor))
    before = sample(bind(with_lora(model), adaptor))
    after = sample(with_lora(bind(model, adaptor)))
    merged_model = build_model()
    with torch.no_grad():
        for key, (_, (change,)) in lora_for(model).items():
            merged_model.model.get_parameter(key).add_(0.7 * change)
    merged = sample(bind(merged_model, adaptor))
    assert relative(after, before) < 1e-5 and relative(merged, before) < 1e-3
    assert relative(before, plain) > 1e-3, "the LoRA should show"
    assert torch.equal(sample(bind(model, adaptor)), plain), "without the LoRA all is as before"


def test_a_lora_before_or_after_what_needs_no_training_gives_the_same_clip(
    model: ModelPatcher, sample: Sampler
) -> None:
    before, after = sample(untrained(with_lora(model)), 4), sample(with_lora(untrained(model)), 4)
    assert relative(after, before) < 1e-5 and relative(before, sample(untrained(model), 4)) > 1e-3


def test_a_new_adaptor_starts_from_the_weights_with_the_lora(model: ModelPatcher) -> None:
    name = "input_blocks.1.1.transformer_blocks.0"
    key = f"diffusion_model.{name}.attn1.to_q.weight"
    expected = model.model.get_parameter(key) + 0.7 * lora_for(model)[key][1][0]
    started = fresh_adaptor(with_lora(model)).model.temporal[name].to_q.up.weight
    torch.testing.assert_close(started, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_a_base_stored_small_gives_nearly_the_fp32_clip(sample: Sampler, dtype: torch.dtype) -> None:
    small, exact = build_model(dtype=dtype), build_model()
    with torch.no_grad():
        for one, other in zip(small.model.parameters(), exact.model.parameters(), strict=True):
            other.copy_(one.to(torch.float32))
    adaptor = trained(fresh_adaptor(exact))
    out, expected = sample(bind(small, adaptor)), sample(bind(exact, adaptor))
    assert out.isfinite().all()
    assert relative(out, expected) < 1e-4, "stored small, computed in fp32: the same weights"
    assert not torch.equal(out, sample(small))


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.float16, marks=pytest.mark.on_oldest),
        pytest.param(torch.bfloat16, marks=pytest.mark.on_newest),
    ],
)
def test_an_adaptor_and_a_model_of_half_precision_compute_in_it(sample: Sampler, dtype: torch.dtype) -> None:
    model = build_model(dtype=dtype)
    model.model.manual_cast_dtype = None
    model.model.model_config.manual_cast_dtype = None
    adaptor = trained(fresh_adaptor(model))
    fresh = fresh_adaptor(model)
    adaptor.model.to(dtype)
    out = sample(bind(model, adaptor))
    assert out.isfinite().all() and not torch.equal(out, sample(model))
    assert torch.equal(sample(bind(model, fresh)), sample(model)), "identity in half precision too"
    steadied = sample(untrained(model), 4)
    assert steadied.isfinite().all() and not torch.equal(steadied, sample(model, 4))
    # The host's own attention rounds half precision otherwise in a batch of another size.
    assert torch.equal(steadied[0], sample(model, 4)[0])


# What samplers do is the host's; each of the two has some of them.
SAMPLERS = [
    *(pytest.param(name, marks=pytest.mark.on_oldest) for name in ("euler_ancestral", "uni_pc", "ddim")),
    *(pytest.param(name, marks=pytest.mark.on_newest) for name in ("dpmpp_2m", "dpmpp_sde", "heun", "lcm")),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_kind_of_sampler_runs_with_the_clip_in_it(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, sampler: str
) -> None:
    out = sample(bind(model, adaptor), 5, sampler=sampler, steps=3)
    assert out.isfinite().all()
    assert not torch.equal(out, sample(model, 5, sampler=sampler, steps=3))
    assert torch.equal(
        sample(bind(model, fresh_adaptor(model)), 5, sampler=sampler, steps=3),
        sample(model, 5, sampler=sampler, steps=3),
    )


def test_two_halves_of_an_advanced_sampling_equal_the_whole(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(model, adaptor)
    whole = sample(bound, steps=4)
    half = sample(bound, steps=4, start_step=0, last_step=2, force_full_denoise=False)
    zeros = torch.zeros_like(half)
    rest = sample(bound, steps=4, start_step=2, last_step=4, latent=half, noise=zeros, disable_noise=True)
    assert relative(rest, whole) < 1e-4


def test_custom_sampling_gives_the_same_clip(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    bound = bind(model, adaptor)
    latent = torch.zeros(6, 4, SIZE, SIZE)
    noise = comfy.sample.prepare_noise(latent, 0)
    guider = comfy.samplers.CFGGuider(bound)
    guider.set_conds(conditioning(1), conditioning(2))
    guider.set_cfg(7.0)
    sigmas = comfy.samplers.calculate_sigmas(bound.get_model_object("model_sampling"), "normal", 2)
    with torch.inference_mode():
        out = guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0)
    assert relative(out, sample(bound, 6)) < 1e-5


def test_areas_and_masks_of_conditionings_run_and_stay_causal(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    positive = conditioning(1, area=(8, 4, 0, 0), strength=1.0) + conditioning(3, mask=mask, mask_strength=1.0)
    bound, text = bind(model, adaptor), {"positive": positive + conditioning(4, strength=0.5)}
    noise = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    other = noise.clone()
    other[3:] = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    out, changed = sample(bound, 6, noise=noise, **text), sample(bound, 6, noise=other, **text)
    assert torch.equal(out[:3], changed[:3]) and not torch.equal(out[3:], changed[3:])
    assert not torch.equal(out, sample(model, 6, noise=noise, **text))


def test_a_prompt_a_frame_reaches_its_frame(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    bound = bind(model, adaptor)
    prompts = conditioning(1, batch=6)
    other = [[prompts[0][0].clone(), {}]]
    other[0][0][4:] = conditioning(9, batch=2)[0][0]
    out, changed = sample(bound, 6, positive=prompts), sample(bound, 6, positive=other)
    assert torch.equal(out[:4], changed[:4]) and not torch.equal(out[4:], changed[4:])


@pytest.mark.parametrize("tokens", [77, 154])
def test_prompts_of_one_and_two_chunks_run(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, tokens: int
) -> None:
    out = sample(bind(model, adaptor), 4, positive=conditioning(1, tokens), negative=conditioning(2, 77))
    assert out.isfinite().all()


def test_a_latent_noise_mask_keeps_what_it_covers(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    latent = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    mask = torch.ones(6, 1, 8, 8)
    mask[:, :, :4] = 0
    out = sample(bind(model, adaptor), 6, latent=latent, noise_mask=mask)
    torch.testing.assert_close(out[:, :, :4], latent[:, :, :4])
    assert not torch.allclose(out[:, :, 4:], latent[:, :, 4:])


WINDOWS = ["standard_static", "standard_uniform", "looped_uniform", "batched"]


@pytest.mark.take_turns
@pytest.mark.parametrize("schedule", WINDOWS)
@pytest.mark.parametrize("order", ["windows last", "windows first"])
def test_the_stock_context_windows_run_with_every_frame_in_its_place(
    model: ModelPatcher,
    adaptor: ModelPatcher,
    sample: Sampler,
    caplog: pytest.LogCaptureFixture,
    schedule: str,
    order: str,
) -> None:
    if order == "windows last":
        bound = with_windows(bind(model, adaptor), 8, 2, schedule, context_stride=2)
    else:
        bound = bind(with_windows(model, 8, 2, schedule, context_stride=2), adaptor)
    with caplog.at_level(logging.DEBUG, logger="magicvideo"):
        out = sample(bound, 19)
    seen = [record.args[0] for record in caplog.records if record.name.startswith("magicvideo")]
    assert out.isfinite().all()
    assert {frame for window in seen for frame in window} == set(range(19))
    assert any(window[0] > 0 for window in seen), "a window that starts later must say so"


def test_windows_that_do_not_overlap_equal_frames_of_the_whole_where_attention_is_off(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    """Without temporal attention a frame depends on its own row of S and B only: windows must pick the right rows."""
    with torch.no_grad():
        for name, parameter in adaptor.model.temporal.named_parameters():
            if ".to_out." in name:
                parameter.zero_()
    bound = bind(model, adaptor)
    assert relative(sample(with_windows(bound, 5, 0, "batched"), 16), sample(bound, 16)) < 1e-4
    several = bind(model, adaptor, frames_per_clip=4)
    assert relative(sample(with_windows(several, 6, 0, "batched"), 16), sample(several, 16)) < 1e-4


def test_a_window_with_an_anchor_frame_in_front_has_one_more_frame(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    if "causal_window_fix" not in comfy.context_windows.IndexListContextHandler.__init__.__code__.co_varnames:
        windowed = with_windows(bind(model, adaptor), 8, 0, "batched")
        lengths = {8}
    else:
        windowed = with_windows(bind(model, adaptor), 8, 0, "batched", causal_window_fix=True)
        lengths = {8, 9}
    with caplog.at_level(logging.DEBUG, logger="magicvideo"):
        assert sample(windowed, 24).isfinite().all()
    seen = {record.args[0] for record in caplog.records if record.name.startswith("magicvideo")}
    assert {len(window) for window in seen} == lengths
    assert {tuple(range(8))} <= seen
    if 9 in lengths:
        assert tuple(range(7, 16)) in seen


def test_other_attention_patches_and_replacements_still_act(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(model, adaptor)
    expected = sample(bound)

    def add(value: float) -> ModelPatcher:
        patched = bound.clone()
        patched.set_model_attn1_patch(lambda n, k, v, options: (n * value, k * value, v * value))
        patched.set_model_attn1_output_patch(lambda n, options: n * value)
        patched.set_model_attn2_output_patch(lambda n, options: n * value)
        return patched

    assert relative(sample(add(1.0)), expected) < 1e-6
    assert relative(sample(add(0.5)), expected) > 1e-3

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict) -> torch.Tensor:
        return optimized_attention(q, k, v, options["n_heads"])

    replaced = bound.clone()
    for side, number in (("input", 1), ("middle", 0), ("output", 2)):
        replaced.set_model_attn1_replace(attention, side, number)
        replaced.set_model_attn2_replace(attention, side, number)
    assert relative(sample(replaced), expected) < 1e-5


def test_a_model_of_nine_channels_for_inpainting_works(sample: Sampler) -> None:
    model = build_model(in_channels=9)
    latent = torch.zeros(4, 4, 8, 8)
    text = {
        "positive": conditioning(1, concat_latent_image=latent, concat_mask=torch.ones(4, 1, 64, 64)),
        "negative": conditioning(2, concat_latent_image=latent, concat_mask=torch.ones(4, 1, 64, 64)),
    }
    adaptor = trained(fresh_adaptor(model))
    out = sample(bind(model, adaptor), 4, latent=latent, **text)
    assert out.isfinite().all() and not torch.equal(out, sample(model, 4, latent=latent, **text))


def test_the_host_plans_memory_for_temporal_activations_too(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []
    load = comfy.model_management.load_models_gpu

    def record(models: list, memory_required: float = 0, **rest: object) -> None:
        planned.append((memory_required, [type(m.model).__name__ for m in models]))
        load(models, memory_required=memory_required, **rest)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", record)
    sample(model, 16), sample(bind(model, adaptor), 16)
    assert planned[1][0] > planned[0][0]
    assert "VideoAdaptor" in planned[1][1], "the host loads the adaptor with the model"


def test_unloading_everything_frees_adaptor_and_model(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(model, adaptor)
    expected = sample(bound)
    comfy.model_management.unload_all_models()
    assert not [m for m in comfy.model_management.current_loaded_models if m.model is not None and m.model is bound]
    assert torch.equal(sample(bound), expected)
