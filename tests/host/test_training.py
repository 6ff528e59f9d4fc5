"""The trainer on the real host: it computes what the host computes, and leaves the graph's model alone."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file
from small_host import SMALL, SMALL_SDXL, build_model, conditioning, denoised_by_host, noise_for, sample
from toy import Told

from magicvideo.adaptor_unet.checkpoint import load
from magicvideo.adaptor_unet.host.base_model import check_text, config_for, unet_weights
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor, hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.sample_clips import SampleSettings, sample_latents
from magicvideo.adaptor_unet.host.training_files import HostEncoders, decode, model_fingerprint
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.settings import RunSettings, TrainingSettings
from magicvideo.trainer.graph import GraphTraining
from magicvideo.trainer.motion_training import MotionTraining, Output, RunParts, tell_of_effects
from magicvideo.trainer.node_inputs import WiredClips

FRAMES, DEVICE = 4, torch.device("cpu")
QUICK = {"precision": "fp32", "sample_every": 0, "validate_every": 0, "still_share": 0.0, "learning_rate": 1e-3}


def moved_adaptor(model: ModelPatcher, frames: int = FRAMES) -> torch.nn.Module:
    adaptor = new_adaptor(config_for(model, frames=frames), "random")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adaptor.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3 / parameter.shape[-1] ** 0.5)
    return adaptor


def clips(count: int = 2) -> TrainingClips:
    generator = torch.Generator().manual_seed(0)

    def clip(rate: float) -> LatentClip:
        text = torch.randn(77, SMALL["context_dim"], generator=generator)
        latents = torch.randn(FRAMES, 4, 8, 8, generator=generator)
        return LatentClip(latents.half(), rate, text, "a clip")  # as they are stored

    return TrainingClips(
        MemoryClips(tuple(clip(8.0 + place) for place in range(count))),
        (clip(8.0),),
        torch.zeros(77, SMALL["context_dim"]),
    )


def training(
    model: ModelPatcher,
    folder: Path,
    watcher: Told | None = None,
    encoders: object = None,
    resume: bool = False,
    **settings: object,
) -> MotionTraining:
    from accelerate import Accelerator

    output = Output(folder / "a.safetensors", folder / "a_base.safetensors", folder / "a.run")
    parts = RunParts(
        model=model,
        clips=clips(),
        settings=TrainingSettings(**{"steps": 2} | QUICK | settings),
        output=output,
        accelerator=Accelerator(cpu=True),
        watchers=lambda done: [(watcher or Told()).begun(done)],
        encoders=lambda: encoders,
        resume=resume,
    )
    return MotionTraining(parts, new_adaptor(config_for(model, frames=FRAMES), "spatial", 0, unet_weights(model)))


@pytest.mark.take_turns
@pytest.mark.usefixtures("either_layers")
@pytest.mark.parametrize("precision", ["whole", "halves"])
def test_the_private_unet_computes_what_the_bound_model_computes(precision: str) -> None:
    """One noise level, two clips with rates of their own, with and without adaptor."""
    model = build_model()
    adaptor = moved_adaptor(model)
    denoiser = TrainingUnet(model, DEVICE, torch.float32, checkpointing=precision == "halves")
    x = torch.randn(2 * FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text = torch.randn(2, 77, SMALL["context_dim"], generator=torch.Generator().manual_seed(2))
    sigma = torch.full((2 * FRAMES,), 2.5)
    for clip, rate in enumerate((8.0, 12.0)):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        for adapted in (True, False):
            used = bind(model, hosted(adaptor), fps=rate) if adapted else model
            expected = denoised_by_host(used, x[rows], [[text[clip : clip + 1], {}]], 2.5)
            with torch.no_grad():
                out = denoiser.predict(x, sigma, text, (8.0, 12.0), adaptor if adapted else None)
            torch.testing.assert_close(denoiser.denoised(out, x, sigma)[rows], expected, rtol=1e-4, atol=1e-4)
    denoiser.close()
    assert not [name for name, module in denoiser.unet.named_modules() if module._forward_hooks]


def test_a_patch_in_training_is_told_the_noise_level_as_in_sampling() -> None:
    """As ComfyUI's own *PatchModelAddDownscale* asks for it."""
    model, seen = build_model(), []

    def patch(h: torch.Tensor, options: dict) -> torch.Tensor:
        seen.append(options["sigmas"])
        return h

    model.set_model_input_block_patch(patch)
    denoiser = TrainingUnet(model, DEVICE, torch.float32, checkpointing=False)
    sigma = torch.full((FRAMES,), 2.5)
    with torch.no_grad():
        denoiser.predict(torch.randn(FRAMES, 4, 8, 8), sigma, torch.zeros(1, 77, SMALL["context_dim"]), (8.0,), None)
    assert seen and all(torch.equal(found, sigma) for found in seen)


def in_8_bits(whole: ModelPatcher) -> ModelPatcher:
    """The model as the host makes it of a checkpoint whose matrices of the feed-forward layers are kept in 8 bits."""
    state = {name: tensor.clone() for name, tensor in whole.model.diffusion_model.state_dict().items()}
    newest = hasattr(comfy.utils, "detect_layer_quantization")
    for layer in [name.removesuffix(".weight") for name, x in state.items() if ".ff." in name and x.ndim == 2]:
        weight = state[f"{layer}.weight"]
        scale = weight.abs().max() / 448
        state[f"{layer}.weight"] = (weight / scale).to(torch.float8_e4m3fn)
        state[f"{layer}.weight_scale" if newest else f"{layer}.scale_weight"] = scale.float()
        if newest:
            words = json.dumps({"format": "float8_e4m3fn"}).encode()
            state[f"{layer}.comfy_quant"] = torch.tensor(list(words), dtype=torch.uint8)
            state[f"{layer}.input_scale"] = torch.tensor(1.0)
    settings = SMALL | {"dtype": torch.float32}
    config = comfy.supported_models.SD15(settings)
    config.unet_config, config.manual_cast_dtype = settings, torch.float32
    if newest:
        config.quant_config = comfy.utils.detect_layer_quantization(state, "")
    else:
        config.scaled_fp8 = torch.float8_e4m3fn
    quantised = config.get_model({}, device="cpu")
    quantised.diffusion_model.load_state_dict(state, strict=False)
    return ModelPatcher(quantised, DEVICE, DEVICE)


def test_a_base_with_weights_in_8_bits_is_copied_and_named() -> None:
    whole = build_model()
    model = in_8_bits(whole)
    extra = {name for name, _ in model.model.diffusion_model.named_parameters()}
    assert any("scale" in name for name in extra)
    copied = TrainingUnet(model, DEVICE, torch.float32, checkpointing=False).unet.state_dict()
    for name, weight in whole.model.diffusion_model.state_dict().items():
        torch.testing.assert_close(copied[name], weight, rtol=0.1, atol=1e-3)
    assert model_fingerprint(model) != model_fingerprint(whole)
    assert fresh_adaptor(model).model.config == fresh_adaptor(whole).model.config


def test_computing_again_gives_the_gradients_of_keeping() -> None:
    model = build_model()
    found = []
    for checkpointing in (False, True):
        adaptor = moved_adaptor(model)
        denoiser = TrainingUnet(model, DEVICE, torch.float32, checkpointing)
        x = torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        text = torch.randn(1, 77, SMALL["context_dim"], generator=torch.Generator().manual_seed(2))
        denoiser.predict(x, torch.full((FRAMES,), 2.0), text, (8.0,), adaptor).square().mean().backward()
        found.append({name: parameter.grad for name, parameter in adaptor.named_parameters()})
    assert all(gradient is not None and gradient.count_nonzero() for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.parametrize(
    ("levels", "shared_noise"), [("one_a_clip", 0.0), ("one_a_clip", 0.3), ("finished_frames", 0.3)]
)
def test_a_sample_clip_is_what_the_stock_sampler_gives(levels: str, shared_noise: float) -> None:
    """Together, and frame by frame where the adaptor is trained for that."""
    model = build_model()
    adaptor = moved_adaptor(model)
    adaptor.config = replace(adaptor.config, frame_noise_levels=levels, shared_noise=shared_noise)
    text, empty = (conditioning(seed)[0][0][0] for seed in (1, 2))
    how = SampleSettings((FRAMES, 4, 8, 8), 12.0, steps=3, cfg=4.0, seed=5)
    denoiser = TrainingUnet(model, DEVICE, torch.float32, checkpointing=False)
    found = sample_latents(denoiser, adaptor, text, empty, how)
    noise = torch.randn(how.shape, generator=torch.Generator().manual_seed(5))
    expected = sample(bind(model, hosted(adaptor), fps=12.0), FRAMES, cfg=4.0, steps=3, noise=noise)
    torch.testing.assert_close(found, model.model.process_latent_in(expected), rtol=1e-3, atol=1e-3)


def test_without_an_adaptor_the_frames_of_a_sample_clip_are_the_models_stills() -> None:
    model = build_model()
    text, empty = (conditioning(seed)[0][0][0] for seed in (1, 2))
    how = SampleSettings((FRAMES, 4, 8, 8), 12.0, steps=3, cfg=4.0, seed=5)
    found = sample_latents(TrainingUnet(model, DEVICE, torch.float32, checkpointing=False), None, text, empty, how)
    noise = torch.randn(how.shape, generator=torch.Generator().manual_seed(5))
    expected = model.model.process_latent_in(sample(model, FRAMES, cfg=4.0, steps=3, noise=noise))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


WHOLE, LAZY = "whole layers", "lazy layers"  # the oldest has no others than whole ones


@pytest.mark.usefixtures("either_layers")
@pytest.mark.parametrize(
    ("either_layers", "tuning"),
    [
        (WHOLE, "frozen"),
        (WHOLE, "full"),
        pytest.param(WHOLE, "lora", marks=pytest.mark.on_oldest),
        pytest.param(LAZY, "lora", marks=pytest.mark.on_newest),
        pytest.param(LAZY, "full", marks=pytest.mark.on_newest),
    ],
    indirect=["either_layers"],
)
def test_the_graphs_model_stays_bit_for_bit_also_when_a_step_breaks_off(tuning: str, tmp_path: Path) -> None:
    class BreakError(Exception):
        pass

    model = build_model()
    expected, before = sample(model), {n: x.clone() for n, x in model.model.state_dict().items()}
    broken = training(model, tmp_path, base_tuning=tuning)
    real = broken.denoiser.predict

    def predict(*args: object) -> torch.Tensor:
        if broken.run.state.step == 1:
            raise BreakError
        return real(*args)

    broken.denoiser.predict = predict
    with pytest.raises(BreakError):
        broken.run.train()
    assert broken.run.state.step == 1
    assert all(torch.equal(x, before[n]) for n, x in model.model.state_dict().items())
    assert torch.equal(sample(model), expected)
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_who_watches_is_told_where_the_run_goes_on_and_when_it_ends_even_badly(tmp_path: Path) -> None:
    model, first, second = build_model(), Told(stop_at=1), Told()
    assert not training(model, tmp_path, first, steps=3).train()
    assert (first.begun_at, first.closed) == (0, 1)
    broken = training(model, tmp_path, second, resume=True, steps=3)
    assert (second.begun_at, second.closed, broken.run.state.step) == (1, 0, 1)
    broken.run.clips = None
    with pytest.raises(AttributeError):
        broken.train()
    assert second.closed == 1


def test_other_files_may_be_written_in_place_of_the_usual_ones(tmp_path: Path) -> None:
    from accelerate import Accelerator

    model, seen = build_model(), []
    output = Output(tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "run")
    adaptor = new_adaptor(config_for(model, frames=FRAMES), "random")
    parts = RunParts(
        model=model,
        clips=clips(),
        settings=TrainingSettings(**{"steps": 1} | QUICK),
        output=output,
        accelerator=Accelerator(cpu=True),
        watchers=lambda done: [],
        export=lambda trainables, step, final: seen.append((trainables.adaptor is adaptor, step, final)),
        memory_format=torch.channels_last,
    )
    made = MotionTraining(parts, adaptor)
    weight = made.denoiser.unet.get_submodule("input_blocks.0.0").weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert made.train()
    assert seen == [(True, 1, True)] and not output.adaptor.exists()


@pytest.mark.usefixtures("either_layers")
def test_a_trained_adaptor_loads_and_shows(tmp_path: Path) -> None:
    model = build_model()
    run = training(model, tmp_path, steps=3)
    assert run.run.train()
    loaded = load(tmp_path / "a.safetensors")
    assert '"steps_done": 3' in loaded.metadata["magicvideo.training"]
    assert loaded.metadata["ss_steps"] == "3" and loaded.metadata["ss_base_model_version"] == "sd_v1"
    assert loaded.metadata["magicvideo.fps"] == "8", "of clips at 8 and 9, the lower of the middle ones"
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, run.run.averages.values[f"adaptor.{name}"])
    assert not torch.equal(sample(bind(model, hosted(loaded)), FRAMES), sample(model, FRAMES))


@pytest.mark.on_newest
def test_the_rate_that_is_chosen_is_said_and_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    training(build_model(model_channels=32), tmp_path, steps=1, learning_rate=0.0).export(0, final=True)
    assert "learning_rate 0 chooses 3e-05 here (clips: 2)" in caplog.text
    assert load(tmp_path / "a.safetensors").metadata["ss_learning_rate"] == "3e-05"
    caplog.clear()
    training(build_model(model_channels=32), tmp_path / "other").export(0, final=True)
    assert "chooses" not in caplog.text
    assert load(tmp_path / "other" / "a.safetensors").metadata["ss_learning_rate"] == "0.001"


@pytest.mark.usefixtures("either_layers")
def test_the_lora_of_a_tuned_base_is_taken_by_the_stock_loader(tmp_path: Path) -> None:
    model = build_model(num_res_blocks=[1, 1])  # as the loaders name it
    run = training(model, tmp_path, steps=4, base_tuning="lora", base_rate=3e-2, ema=0.0)
    run.run.train()
    lora = load_file(tmp_path / "a_base.safetensors")
    tuned, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 1.0)
    assert len(tuned.patches) == len(lora) // 3 > 0
    x, text = torch.randn(FRAMES, 4, 8, 8), torch.randn(1, 77, SMALL["context_dim"])
    with torch.no_grad():
        out = run.denoiser.predict(x, torch.full((FRAMES,), 2.5), text, (8.0,), None)
    found = run.denoiser.denoised(out, x, torch.full((FRAMES,), 2.5))
    torch.testing.assert_close(denoised_by_host(tuned, x, [[text, {}]], 2.5), found, rtol=1e-4, atol=1e-4)
    assert (denoised_by_host(model, x, [[text, {}]], 2.5) - found).abs().max() > 1e-2


@pytest.mark.usefixtures("either_layers")
def test_a_base_with_a_lora_on_it_is_trained_as_it_samples(tmp_path: Path) -> None:
    model = build_model()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    patched = model.clone()
    patched.add_patches({key: ("diff", (torch.randn(64, 64) * 0.3,))})
    x, text, sigma = torch.randn(2, 4, 8, 8), torch.randn(1, 77, SMALL["context_dim"]), torch.full((2,), 2.5)
    denoiser = TrainingUnet(patched, DEVICE, torch.float32, checkpointing=False)
    with torch.no_grad():
        found = denoiser.denoised(denoiser.predict(x, sigma, text, (8.0,), None), x, sigma)
    torch.testing.assert_close(found, denoised_by_host(patched, x, [[text, {}]], 2.5), rtol=1e-4, atol=1e-4)


def test_attention_patches_of_other_nodes_act_in_training_too() -> None:
    model = build_model()
    patched = model.clone()
    patched.set_model_attn2_output_patch(lambda out, options: 0.5 * out)
    x, text, sigma = torch.randn(2, 4, 8, 8), torch.randn(1, 77, SMALL["context_dim"]), torch.full((2,), 2.5)
    denoiser = TrainingUnet(patched, DEVICE, torch.float32, checkpointing=False)
    for adaptor in (None, moved_adaptor(model)):
        used = patched if adaptor is None else bind(patched, hosted(adaptor), fps=8.0)
        with torch.no_grad():
            found = denoiser.denoised(denoiser.predict(x, sigma, text, (8.0,), adaptor), x, sigma)
        torch.testing.assert_close(found, denoised_by_host(used, x, [[text, {}]], 2.5), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("either_layers")
@pytest.mark.parametrize(
    ("either_layers", "dtype"),
    [
        (WHOLE, torch.float16),
        pytest.param(WHOLE, torch.bfloat16, marks=pytest.mark.on_oldest),
        pytest.param(LAZY, torch.bfloat16, marks=pytest.mark.on_newest),
    ],
    indirect=["either_layers"],
)
def test_a_base_in_half_precision_is_trained_in_full(dtype: torch.dtype, tmp_path: Path) -> None:
    model = build_model(dtype=dtype)
    told = Told()
    assert training(model, tmp_path, told).run.train()
    assert all(0 < loss < 1e4 for loss in told.series("loss"))


@pytest.mark.on_newest  # how torch rounds while it trains
def test_bf16_training_follows_fp32(tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        told = Told()
        run = training(build_model(), tmp_path / precision, told, precision=precision, steps=3)
        run.run.train()
        assert all(parameter.dtype is torch.float32 for parameter in run.trainables.parameters.values())
        losses.append(torch.tensor(told.series("loss")))
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.01)
    assert not torch.equal(losses[1], losses[0])


def test_a_v_prediction_base_is_to_put_out_v(tmp_path: Path) -> None:
    from magicvideo.adaptor_unet.training.objective import target

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    model = build_model()
    changed = model.clone()
    changed.add_object_patch("model_sampling", Sampling(model.model.model_config))
    denoiser = TrainingUnet(changed, DEVICE, torch.float32, checkpointing=False)
    latents, noise = torch.randn(2, 3, 4, 8, 8)
    sigma = denoiser.sigmas[torch.tensor([100, 500, 900])]
    wanted, _ = target(denoiser, latents, denoiser.add_noise(latents, noise.clone(), sigma), sigma)
    level = sigma[:, None, None, None]
    torch.testing.assert_close(wanted, (noise - level * latents) / (1 + level**2) ** 0.5, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("either_layers")
def test_training_inside_inference_mode_is_told_apart_from_it(tmp_path: Path) -> None:
    """Nodes run in inference mode; tensors made there cannot be trained on."""
    with torch.inference_mode():
        model = build_model()
        with torch.inference_mode(False), torch.enable_grad():
            run = training(model, tmp_path)
            assert run.run.train()
    assert not any(parameter.is_inference() for parameter in run.trainables.parameters.values())


def test_an_adaptor_of_another_unet_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    model, other = build_model(), build_model(model_channels=128)
    from accelerate import Accelerator

    adaptor = new_adaptor(config_for(other, frames=FRAMES), "random")
    output = Output(tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "run")
    parts = RunParts(
        model=model,
        clips=clips(),
        settings=TrainingSettings(),
        output=output,
        accelerator=Accelerator(cpu=True),
        watchers=lambda done: [],
    )
    with pytest.raises(ValueError, match="made for a UNet with"):
        MotionTraining(parts, adaptor)
    assert not any(tmp_path.iterdir())


def test_a_unet_that_takes_what_a_run_has_not_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 9 channels, but this one takes 8"):
        training(build_model(in_channels=8), tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_autoencoder_of_another_kind_of_model_is_refused_before_a_clip_is_encoded() -> None:
    with pytest.raises(ValueError, match="autoencoder of 16 channels, but the model works with 4"):
        HostEncoders(build_model(), None, SimpleNamespace(latent_channels=16), "")
    with pytest.raises(ValueError, match="takes 9 channels, but this one takes 8"):
        HostEncoders(build_model(in_channels=8), None, SimpleNamespace(latent_channels=4), "")


def test_captions_of_another_kind_of_model_are_refused() -> None:
    check_text(build_model(), SMALL["context_dim"])
    with pytest.raises(ValueError, match=f"encoded with 1024 channels, but the model reads {SMALL['context_dim']}"):
        check_text(build_model(), 1024)


def test_a_base_whose_sampling_no_checkpoint_can_tell_is_refused_before_a_clip_is_encoded() -> None:
    model = build_model(comfy.supported_models.SDXL, **SMALL_SDXL)
    sampling = comfy.model_sampling
    playground = type("Playground", (sampling.ModelSamplingContinuousEDM, sampling.EDM), {})
    model.add_object_patch("model_sampling", playground(model.model.model_config))
    settings = RunSettings.from_values({"base_tuning": "full", "frames": FRAMES})
    wired = WiredClips(images=[torch.zeros(FRAMES, 8, 8, 3)])
    with pytest.raises(ValueError, match="Take base_tuning lora or frozen"):
        GraphTraining(model=model, encoders=None, clips=wired, settings=settings, name="a").train()


class ProductVae:
    """Pictures of one product of latents, which computing in half would round."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.einsum("f c h w, c d -> f h w d", latents, torch.linspace(0.01, 0.07, 12).view(4, 3))


def test_sample_clips_are_decoded_in_the_autoencoders_own_precision() -> None:
    model, latents = build_model(), noise_for(2).abs()
    plain = decode(model, ProductVae(), latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decode(model, ProductVae(), latents), plain)


def test_an_effect_on_the_model_that_is_trained_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    model = build_model()
    tell_of_effects(bind(model, hosted(moved_adaptor(model)), strength=0.0))
    assert not caplog.text
    tell_of_effects(bind(model, hosted(moved_adaptor(model))))
    assert "Apply MagicVideo on the model has no part in this training" in caplog.text
