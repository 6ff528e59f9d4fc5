"""What the pack promises holds for every family of Stable Diffusion: 1.x, 2.x, XL and those made of it, with the
inputs that models for inpainting and editing take beside the latents."""

from pathlib import Path

import comfy.ops
import comfy.sd
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from small_host import (
    FAMILIES,
    SMALL,
    Sampler,
    build_model,
    conditioning,
    denoised_by_host,
    noise_for,
    trained,
    with_all_weights,
)
from ways import UNTRAINED, Way, features, moved, untrained

from graph_training import folders_below, graph_training, moving_square
from magicvideo.adaptor_unet.checkpoint import load, save
from magicvideo.adaptor_unet.host.base_model import family_of
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.calibrate import calibrated_adaptor
from magicvideo.adaptor_unet.host.caption_tensor import CaptionTensor
from magicvideo.adaptor_unet.host.hosted import adaptor_for, fresh_adaptor, hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.nodes.adaptor import NewAdaptor
from magicvideo.trainer.node_inputs import WiredClips
from measures import relative

FRAMES = 6
CLOSE = 1e-4


# Of several whose network is of one kind to the host, the oldest has one; SD1.5 itself is what all other files have.
ON_NEWEST = {"SD1.5", "SDXL for editing", "SSD-1B", "Segmind Vega"}


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.on_newest] * (name in ON_NEWEST)) for name in FAMILIES])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> ModelPatcher:
    kind, changes = FAMILIES[family]
    return build_model(kind, **changes)


def test_a_model_is_known_by_its_family(model: ModelPatcher, family: str) -> None:
    assert family_of(model) == family.split(" for ")[0]


@pytest.mark.take_turns
@pytest.mark.parametrize("way", [moved, untrained])
def test_strength_zero_is_the_image_model_and_strength_one_is_not(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way
) -> None:
    plain = sample(model, FRAMES)
    assert torch.equal(sample(way(model, adaptor, strength=0.0), FRAMES), plain)
    assert not torch.equal(sample(way(model, adaptor), FRAMES), plain)
    assert torch.equal(sample(model, FRAMES), plain), "the model stays clean"


def test_an_untrained_adaptor_changes_nothing(model: ModelPatcher, sample: Sampler) -> None:
    assert torch.equal(sample(bind(model, fresh_adaptor(model)), FRAMES), sample(model, FRAMES))


@pytest.mark.take_turns
@pytest.mark.parametrize("way", [moved, *UNTRAINED])
def test_later_noise_leaves_earlier_frames_bit_for_bit(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way
) -> None:
    bound, one = way(model, adaptor), noise_for()
    other = torch.cat([one[:3], noise_for(seed=5)[3:]])
    before, after = sample(bound, noise=one, frames=FRAMES), sample(bound, noise=other, frames=FRAMES)
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3:], after[3:])


@pytest.mark.take_turns
@pytest.mark.parametrize("way", [moved, features])
def test_chunks_equal_the_whole(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way) -> None:
    bound = way(model, adaptor)
    assert relative(sample(with_causal_windows(bound, 2), FRAMES), sample(bound, FRAMES)) <= CLOSE


def test_frame_by_frame_the_first_frame_is_that_of_any_clip(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(model, adaptor, order="frame by frame")
    assert torch.equal(sample(bound, 3, noise=noise_for(3))[0], sample(bound, 1, noise=noise_for(1))[0])


def test_an_adaptor_comes_back_from_its_file_and_fits(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, tmp_path: Path
) -> None:
    again = hosted(load(save(adaptor.model, tmp_path / "adaptor.safetensors")))
    assert again.model.config.base == family_of(model)
    assert torch.equal(sample(bind(model, again), FRAMES), sample(bind(model, adaptor), FRAMES))


def test_an_adaptor_can_be_calibrated(model: ModelPatcher, sample: Sampler) -> None:
    made = calibrated_adaptor(model, {"samples": noise_for()}, conditioning(1), steps=2)
    assert not torch.equal(sample(bind(model, made), FRAMES), sample(model, FRAMES))


@pytest.mark.parametrize("family", ["SDXL"], indirect=True)
def test_an_adaptor_whose_attention_stands_in_first_blocks_alone_can_be_calibrated(
    model: ModelPatcher, sample: Sampler
) -> None:
    few = trained(hosted(adaptor_for(model, "random", attention_at="first_block", frames=FRAMES)))
    made = calibrated_adaptor(model, {"samples": noise_for()}, conditioning(1), steps=2, adaptor=few)
    assert made.model.config == few.model.config
    assert not torch.equal(sample(bind(model, made), FRAMES), sample(bind(model, few), FRAMES))


def test_heads_are_as_wide_as_the_familys_own(adaptor: ModelPatcher, family: str) -> None:
    config = adaptor.model.config
    heads = {config.heads_at(site) for site in config.transformers}
    assert heads == ({8} if family.startswith("SD1.5") else {1}), "of 64 channels"


@pytest.mark.parametrize(("made_for", "other"), [("SD1.5", "SD2"), ("SDXL", "SSD-1B"), ("SD2", "SDXL")])
def test_an_adaptor_of_another_family_is_refused_with_both_names(made_for: str, other: str) -> None:
    (kind, changes), (other_kind, other_changes) = FAMILIES[made_for], FAMILIES[other]
    adaptor = trained(fresh_adaptor(build_model(kind, **changes)))
    with pytest.raises(ValueError, match=rf"made for {made_for}, but the model is {other}\."):
        bind(build_model(other_kind, **other_changes), adaptor)


TRAINABLE = pytest.mark.parametrize(
    "family", ["SD1.5 for inpainting", "SD2", "SDXL", "SDXL for editing", "Segmind Vega"], indirect=True
)


@TRAINABLE
def test_the_trainer_s_network_computes_what_the_bound_model_computes(
    model: ModelPatcher, adaptor: ModelPatcher
) -> None:
    denoiser = TrainingUnet(model, torch.device("cpu"), torch.float32, checkpointing=False)
    captions, x = [conditioning(1), conditioning(2)], noise_for(2 * FRAMES)
    kept = denoiser.captions.stacked(
        [denoiser.captions.joined(text[0][0][0], text[0][1]["pooled_output"][0]) for text in captions]
    )
    sigma = torch.full((2 * FRAMES,), 2.5)
    with torch.no_grad():
        out = denoiser.predict(2.5 * x, sigma, kept, (8.0, 12.0), adaptor.model)
    denoised = denoiser.denoised(out, 2.5 * x, sigma)
    for clip, rate in enumerate((8.0, 12.0)):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        bound = bind(model, adaptor, fps=rate)
        expected = denoised_by_host(bound, 2.5 * x[rows], captions[clip], 2.5)
        torch.testing.assert_close(denoised[rows], expected, rtol=1e-4, atol=1e-4)
    denoiser.close()


@pytest.mark.parametrize(
    ("family", "tuning"),
    [  # a LoRA is trained beside the adaptor, which is all that there is without one
        ("SD1.5 for inpainting", "lora"),
        pytest.param("SD2", "lora", marks=pytest.mark.on_newest),
        ("SDXL", "lora"),
        pytest.param("SDXL", "frozen", marks=pytest.mark.on_newest),
        pytest.param("SDXL for editing", "lora", marks=pytest.mark.on_newest),
        pytest.param("Segmind Vega", "lora", marks=pytest.mark.on_newest),
    ],
    indirect=["family"],
)
def test_an_adaptor_is_trained_in_the_graph_and_fits(
    model: ModelPatcher, tuning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Sampler
) -> None:
    monkeypatch.setattr("magicvideo.trainer.graph.training_folders", lambda: folders_below(tmp_path))
    told = "a square that moves to the right, on black, and is told of in more words than one chunk of tokens has"
    clips = WiredClips(images=[moving_square()], captions=[told])
    settings = {"learning_rate": 1e-2, "base_tuning": tuning}
    with torch.inference_mode():
        adaptor, plot, frames = graph_training(model, clips, **settings).train()
    assert family_of(model) == adaptor.model.config.base and frames.isfinite().all()
    (saved,) = tmp_path.glob("adaptors/*.safetensors")
    told = load(saved).metadata["ss_base_model_version"]
    assert told == {"SD1.5": "sd_v1", "SD2": "sd_v2"}.get(family_of(model), "sdxl_base_v1-0")
    assert not torch.equal(sample(bind(model, adaptor), FRAMES), sample(model, FRAMES))


@pytest.mark.parametrize("family", ["SDXL"], indirect=True)
def test_attention_may_stand_in_the_first_block_of_each_transformer_alone(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    few = trained(hosted(adaptor_for(model, "random", attention_at="first_block")), seed=3)
    assert len(few.model.config.transformers) == 4 and len(adaptor.model.config.transformers) == 8
    alone, both = sample(bind(model, few), FRAMES), sample(bind(bind(model, few), adaptor), FRAMES)
    assert not torch.equal(alone, sample(model, FRAMES))
    assert relative(sample(bind(bind(model, adaptor), few), FRAMES), both) <= CLOSE, "in either order"
    assert not torch.equal(both, sample(bind(model, adaptor), FRAMES))
    assert relative(sample(with_causal_windows(bind(model, few), 2), FRAMES), alone) <= CLOSE


def test_the_node_puts_attention_where_it_is_asked_to_and_into_first_blocks_by_default() -> None:
    kind, changes = FAMILIES["SDXL"]
    model = build_model(kind, **changes | {"model_channels": 64})  # its heads have 64 channels
    settings = {"frames": 4, "rank": 2, "init": "random", "seed": 0}
    made = [NewAdaptor.execute(model, **settings, **chosen).args[0] for chosen in ({}, {"attention_at": "every_block"})]
    assert [len(one.model.config.transformers) for one in made] == [4, 8]


def test_a_caption_without_its_vector_is_refused_where_the_model_wants_one() -> None:
    layout = CaptionTensor(channels=32, vector=1280)
    with pytest.raises(ValueError, match="needs a pooled output of 1280 numbers, found none"):
        layout.joined(torch.zeros(77, 32), None)


def test_tokens_and_vector_come_back_as_they_were() -> None:
    layout, vector = CaptionTensor(channels=32, vector=50), torch.randn(50)
    short, long = torch.randn(2, 32), torch.randn(4, 32)
    tokens, vectors = layout.apart(layout.stacked([layout.joined(short, vector), layout.joined(long, -vector)]))
    assert torch.equal(tokens[0], torch.cat([short, short])) and torch.equal(tokens[1], long)
    assert torch.equal(vectors, torch.stack([vector, -vector]))


def test_captions_of_lengths_that_do_not_divide_become_equally_long_in_fp32() -> None:
    """In fp32 because a processor's autocast joins no tensors of fp16, as shards may have them."""
    layout, captions = CaptionTensor(channels=32, vector=50), [torch.randn(n, 32).half() for n in (2 + 2, 3 + 2)]
    with torch.autocast("cpu", torch.bfloat16):
        stacked = layout.stacked(captions)
    assert stacked.shape == (2, 6 + 2, 32) and stacked.dtype == torch.float32
    assert torch.equal(layout.apart(stacked)[0][1], captions[1][:3].float().repeat(2, 1))


# Blocks of the real networks, each level 320 channels wide, as the host's loader tells families apart.
WIDE = {"in_channels": 4, "out_channels": 4, "num_res_blocks": [2, 2, 2], "channel_mult": (1, 1, 1)}
FULL_SIZE = {
    "SD2": {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": (1, 1, 1, 1),
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
    },
    "Segmind Vega": {"transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2], "transformer_depth_middle": -1},
    "SDXL": {"transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_network_from_the_stock_loader_is_known_and_takes_an_adaptor(name: str, sample: Sampler) -> None:
    kind = FAMILIES[name][0]
    settings = SMALL | FAMILIES[name][1] | kind.unet_config | kind.unet_extra_config | WIDE | FULL_SIZE[name]
    network = with_all_weights(UNetModel(**settings, dtype=torch.float32, operations=comfy.ops.disable_weight_init))
    weights = {key: torch.full_like(value, 1e-3) for key, value in network.state_dict().items()}
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    assert family_of(model) == name
    adaptor = trained(fresh_adaptor(model, rank=4, init="random"))
    text = conditioning(1, channels=kind.unet_config["context_dim"])
    given = {"frames": 2, "steps": 1, "positive": text, "negative": text}
    assert not torch.equal(sample(bind(model, adaptor), **given), sample(model, **given))
