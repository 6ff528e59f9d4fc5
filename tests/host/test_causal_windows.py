"""Causal windows: chunk by chunk gives what the whole batch gives, whatever is sampled and however."""

from collections.abc import Callable
from functools import partial

import comfy.context_windows
import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_host import SIZE, Sampler, conditioning, noise_for, trained
from stock_windows import NO_ANCHOR, with_windows
from ways import (
    UNTRAINED,
    Way,
    cross_frame,
    far_looking,
    features,
    last_frames,
    latents,
    moved,
    planned_bytes,
    sharp_model,
    untrained,
)

from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.causal_windows import CausalWindows
from magicvideo.adaptor_unet.host.frame_cache import FrameCache
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.unet_call import BATCH_FRAMES_KEY, with_tiles_counted
from measures import relative

CLOSE = 1e-4


@pytest.fixture
def adaptor(model: ModelPatcher) -> ModelPatcher:
    """Looks back far and acts strongly, so that a chunk without its past would show."""
    return far_looking(model)


def split_conditionings(monkeypatch: pytest.MonkeyPatch, model: ModelPatcher) -> None:
    """Makes the host believe that two conditionings never fit into memory together."""
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)


@pytest.mark.take_turns
@pytest.mark.parametrize(
    ("frames", "sampler", "cfg"),
    [
        (12, "euler", 7.0),
        (12, "euler", 1.0),
        (12, "dpmpp_2m", 7.0),
        (12, "euler_ancestral", 7.0),
        # A long clip takes many calls of the UNet, so each ComfyUI has one of the two samplers.
        pytest.param(60, "euler", 7.0, marks=pytest.mark.on_oldest),
        pytest.param(60, "dpmpp_2m", 1.0, marks=pytest.mark.on_newest),
    ],
)
def test_chunks_of_any_size_equal_the_whole_batch(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, frames: int, sampler: str, cfg: float
) -> None:
    bound = bind(model, adaptor)
    whole = sample(bound, frames, cfg, sampler=sampler)
    for chunk in (1, 3, 8) if frames == 12 else (7, 16):
        assert relative(sample(with_causal_windows(bound, chunk), frames, cfg, sampler=sampler), whole) <= CLOSE, chunk


@pytest.mark.take_turns
@pytest.mark.parametrize("way", [moved, cross_frame, last_frames, features])
def test_without_the_past_chunks_would_differ(
    adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    bound = way(sharp_model(), adaptor)
    whole = sample(bound)
    begin = FrameCache.begin_chunk
    monkeypatch.setattr(FrameCache, "begin_chunk", lambda cache: (cache.entries.clear(), begin(cache)))
    assert relative(sample(with_causal_windows(bound, 3)), whole) > 10 * CLOSE


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    clip=st.integers(1, 6),
    clips=st.integers(1, 3),
    chunk=st.integers(1, 8),
    positives=st.integers(1, 3),
    guided=st.booleans(),
    offload=st.booleans(),
    apart=st.booleans(),
    more=st.booleans(),
)
def test_any_length_chunk_clip_and_conditioning_count_equals_the_whole(
    sample: Sampler,
    clip: int,
    clips: int,
    chunk: int,
    positives: int,
    guided: bool,
    offload: bool,
    apart: bool,
    more: bool,
) -> None:
    """Of a motion alone, and of all that the pack can do at once."""
    model, length = sharp_model(), clip if clips > 1 else 0
    bound = bind(model, trained(fresh_adaptor(model, frames=4), size=1.0), frames_per_clip=length)
    bound = untrained(bound, clip=length) if more else bound
    text = {"positive": [entry for seed in range(positives) for entry in conditioning(seed + 3, strength=seed + 1.0)]}
    with pytest.MonkeyPatch.context() as patch:
        if apart:
            split_conditionings(patch, model)
        whole, chunked = (
            sample(one, clip * clips, 7.0 if guided else 1.0, steps=1, **text)
            for one in (bound, with_causal_windows(bound, chunk, offload))
        )
    assert relative(chunked, whole) <= CLOSE


# What samplers do is the host's; each of the two has some of them.
SAMPLERS = [
    *(pytest.param(name, marks=pytest.mark.on_oldest) for name in ("dpm_2_ancestral", "uni_pc", "ddim", "lms")),
    *(pytest.param(name, marks=pytest.mark.on_newest) for name in ("heun", "dpmpp_sde", "lcm")),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_of_every_kind_give_the_whole_batch(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, sampler: str
) -> None:
    bound = bind(model, adaptor)
    whole, chunked = (sample(one, 6, sampler=sampler, steps=3) for one in (bound, with_causal_windows(bound, 4)))
    assert relative(chunked, whole) <= CLOSE


def test_what_needs_no_training_stands_before_or_behind_an_adaptor_and_windows(
    adaptor: ModelPatcher, sample: Sampler
) -> None:
    model = sharp_model()
    expected = sample(latents(features(cross_frame(with_causal_windows(bind(model, adaptor), 3)))), 7)
    for first in (cross_frame, features):
        other = {cross_frame: features, features: cross_frame}[first]
        between = other(with_causal_windows(first(latents(bind(model, adaptor))), 3))
        assert torch.equal(sample(between, 7), expected)
        assert torch.equal(sample(with_causal_windows(bind(other(latents(first(model))), adaptor), 3), 7), expected)
    assert relative(expected, sample(latents(features(cross_frame(bind(model, adaptor)))), 7)) <= CLOSE


def test_the_order_of_the_two_nodes_makes_no_difference(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    other = trained(fresh_adaptor(model), seed=2)
    last = with_causal_windows(bind(bind(model, adaptor, frames_per_clip=5), other), 4)
    first = bind(bind(with_causal_windows(model, 4), adaptor, frames_per_clip=5), other)
    between = bind(with_causal_windows(bind(model, adaptor, frames_per_clip=5), 4), other)
    expected = sample(last, 10)
    assert torch.equal(sample(first, 10), expected) and torch.equal(sample(between, 10), expected)
    assert relative(expected, sample(bind(bind(model, adaptor, frames_per_clip=5), other), 10)) <= CLOSE


def test_a_model_without_an_adaptor_gives_its_pictures_in_chunks(model: ModelPatcher, sample: Sampler) -> None:
    assert relative(sample(with_causal_windows(model, 3), 8), sample(model, 8)) <= CLOSE


def test_a_batch_that_fits_one_chunk_is_sampled_whole_bit_for_bit(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(model, adaptor)
    assert torch.equal(sample(with_causal_windows(bound, 16)), sample(bound))


def test_two_motions_of_one_adaptor_keep_a_past_each(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(bind(model, adaptor, strength=0.7), adaptor, strength=0.7)
    assert relative(sample(with_causal_windows(bound, 3), 8), sample(bound, 8)) <= CLOSE


def test_motions_with_clips_of_two_lengths_equal_the_whole(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = bind(bind(model, adaptor, frames_per_clip=4), trained(fresh_adaptor(model), seed=2), frames_per_clip=6)
    assert relative(sample(with_causal_windows(bound, 5), 12), sample(bound, 12)) <= CLOSE


@pytest.mark.parametrize("start_percent, end_percent", [(0.0, 0.5), (0.5, 1.0)])
def test_a_motion_that_acts_in_some_steps_only_equals_the_whole(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, start_percent: float, end_percent: float
) -> None:
    bound = bind(model, adaptor, start_percent=start_percent, end_percent=end_percent)
    whole, chunked = (sample(one, 10, steps=4) for one in (bound, with_causal_windows(bound, 4)))
    assert relative(chunked, whole) <= CLOSE


@pytest.mark.parametrize("apart", [False, True])
def test_areas_and_masks_equal_the_whole_joined_or_apart(
    adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    """The host gives the unconditional copy of an area the area's own uuid: two pasts under one name."""
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    text = {"positive": conditioning(1, area=(8, 4, 0, 0)) + conditioning(3, mask=mask) + conditioning(4)}
    model = sharp_model()
    bound = untrained(bind(model, adaptor))
    whole = sample(bound, 10, size=8, **text)
    if apart:
        split_conditionings(monkeypatch, model)
    assert relative(sample(with_causal_windows(bound, 4), 10, size=8, **text), whole) <= CLOSE


def test_conditionings_joined_in_one_chunk_and_apart_in_the_next_equal_the_whole(
    adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {"positive": conditioning(1, area=(8, 4, 0, 0)) + conditioning(4)}
    model = sharp_model()
    bound = untrained(bind(model, adaptor))
    whole = sample(bound, 12, size=8, **text)
    chunks = []
    begin = FrameCache.begin_chunk
    monkeypatch.setattr(FrameCache, "begin_chunk", lambda cache: (chunks.append(cache), begin(cache)))
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30 if len(chunks) % 2 else 1.0)
    rows = rows_in_calls(model)
    assert relative(sample(with_causal_windows(bound, 3), 12, size=8, **text), whole) <= CLOSE
    assert {3, 6} <= set(rows) and len(chunks) == 8


def tile_by_tile(apply: Callable, given: dict) -> torch.Tensor:
    """A node that calls the UNet tile by tile does so with the same conditionings each time."""
    tiles = given["input"].split(SIZE // 2, dim=-1)
    return torch.cat([apply(tile, given["timestep"], **given["c"]) for tile in tiles], dim=-1)


def tiles_in_one_call(apply: Callable, given: dict) -> torch.Tensor:
    """Some nodes join them, tile behind tile, and leave the host's list of conditionings as it is."""

    def for_all(value: object) -> object:
        has_rows = isinstance(value, torch.Tensor) and len(value) == len(given["input"])
        return torch.cat([value, value]) if has_rows else value

    tiles = torch.cat(given["input"].split(SIZE // 2, dim=-1))
    others = {name: for_all(value) for name, value in given["c"].items()}
    return torch.cat(apply(tiles, for_all(given["timestep"]), **others).chunk(2), dim=-1)


def in_tiles(model: ModelPatcher, wrapper: Callable) -> ModelPatcher:
    made = model.clone()
    made.set_model_unet_function_wrapper(wrapper)
    return made


def test_tiles_of_another_node_keep_a_past_each(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    bound = in_tiles(bind(model, adaptor), tile_by_tile)
    assert relative(sample(with_causal_windows(bound, 3), 10), sample(bound, 10)) <= CLOSE


@pytest.mark.take_turns
@pytest.mark.parametrize(
    "way",
    [
        bind,
        *UNTRAINED,
        partial(bind, order="frame by frame"),
        partial(bind, frames_per_clip=3),
        partial(bind, frames_per_clip=3, order="frame by frame"),
    ],
)
@pytest.mark.parametrize("chunk", [0, 2])
def test_tiles_in_one_call_are_what_they_are_one_by_one(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way, chunk: int
) -> None:
    bound = way(model, adaptor)
    bound = with_causal_windows(bound, chunk) if chunk else bound
    one_by_one, joined = (sample(in_tiles(bound, how), 6) for how in (tile_by_tile, tiles_in_one_call))
    assert relative(joined, one_by_one) <= CLOSE


def test_custom_sampling_in_chunks_gives_the_whole(model: ModelPatcher, adaptor: ModelPatcher) -> None:
    results = []
    for bound in (bind(model, adaptor), with_causal_windows(bind(model, adaptor), 4)):
        latent = torch.zeros(10, 4, SIZE, SIZE)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
        guider = comfy.samplers.CFGGuider(bound)
        guider.set_conds(conditioning(1), conditioning(2))
        guider.set_cfg(5.0)
        sigmas = comfy.samplers.calculate_sigmas(bound.get_model_object("model_sampling"), "karras", 3)
        with torch.inference_mode():
            sampler = comfy.samplers.sampler_object("dpmpp_2m_sde")
            results.append(guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=0))
    assert relative(results[1], results[0]) <= CLOSE


def test_earlier_frames_do_not_know_how_long_the_clip_gets(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = with_causal_windows(bind(model, adaptor), 4)
    noise = noise_for(14)
    assert torch.equal(sample(bound, 8, noise=noise[:8]), sample(bound, 14, noise=noise)[:8])


def rows_in_calls(model: ModelPatcher) -> list[int]:
    rows: list[int] = []
    model.model.diffusion_model.register_forward_pre_hook(lambda unet, args: rows.append(args[0].shape[0]))
    return rows


def test_no_call_holds_more_than_a_chunk_and_no_chunk_two_clips(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    rows = rows_in_calls(model)
    sample(with_causal_windows(bind(model, adaptor, frames_per_clip=7), 4), 14, cfg=1.0, steps=1)
    assert rows == [4, 3, 4, 3]


def test_image_prompt_adapters_find_the_frames_of_their_chunk(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    found = []

    def look(apply: object, given: dict) -> torch.Tensor:
        found.append(given["c"]["transformer_options"]["ad_params"])
        return apply(given["input"], given["timestep"], **given["c"])

    bound = bind(with_causal_windows(model, 4), adaptor)
    bound.set_model_unet_function_wrapper(look)
    sample(bound, 6, cfg=1.0, steps=1)
    assert [(record["sub_idxs"], record["full_length"]) for record in found] == [([0, 1, 2, 3], 6), ([4, 5], 6)]
    bound.model_options["transformer_options"]["ad_params"] = {"sub_idxs": None, "full_length": 99}
    found.clear()
    sample(bound, 6, cfg=1.0, steps=1)
    assert {record["full_length"] for record in found} == {99}, "another node's own record is left alone"


def test_image_prompt_adapters_find_the_frames_of_a_stock_window(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    found = []

    def look(apply: object, given: dict) -> torch.Tensor:
        found.append(given["c"]["transformer_options"].get("ad_params"))
        return apply(given["input"], given["timestep"], **given["c"])

    bound = bind(with_windows(model, 4, 1, "standard_static", **NO_ANCHOR), adaptor)
    bound.set_model_unet_function_wrapper(look)
    sample(bound, 7, cfg=1.0, steps=1)
    assert [record["sub_idxs"] for record in found] == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert all((record["full_length"], record["context_length"]) == (7, 4) for record in found)
    assert "ad_params" not in bound.model_options["transformer_options"]


class CountedReads:
    """Noise levels that note when they are read."""

    def __init__(self, sigmas: torch.Tensor, reads: list[float]) -> None:
        self.sigmas, self.reads = sigmas, reads

    def flatten(self) -> torch.Tensor:
        self.reads.append(float(self.sigmas[0]))
        return self.sigmas


def test_the_noise_level_is_read_once_a_step_however_many_chunks_there_are(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, begin = [], FrameCache.begin_step
    monkeypatch.setattr(FrameCache, "begin_step", lambda cache, sigmas: begin(cache, CountedReads(sigmas, reads)))
    bound = features(bind(model, adaptor, end_percent=0.8))
    sample(with_causal_windows(bound, 2), frames=6, steps=4)
    assert len(reads) == 4 == len(set(reads))


def test_an_interrupt_leaves_no_past_behind(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = []
    begin = FrameCache.begin_chunk

    def begin_and_stop(cache: FrameCache) -> None:
        begin(cache)
        caches.append((cache, len(cache.entries)))
        if len(caches) == 3:
            comfy.model_management.interrupt_current_processing()

    bound = with_causal_windows(bind(model, adaptor), 2)
    expected = sample(bound)
    with monkeypatch.context() as patch, pytest.raises(comfy.model_management.InterruptProcessingException):
        patch.setattr(FrameCache, "begin_chunk", begin_and_stop)
        sample(bound)
    assert caches[2][1] > 0 and all(not cache.entries for cache, _ in caches)
    assert torch.equal(sample(bound), expected)


def test_the_model_that_came_in_stays_as_it_was(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    plain, bound = sample(model), bind(model, adaptor)
    clip = sample(bound)
    sample(with_causal_windows(model, 4)), sample(with_causal_windows(bound, 4))
    assert "context_handler" not in model.model_options and "context_handler" not in bound.model_options
    assert torch.equal(sample(model), plain) and torch.equal(sample(bound), clip)


def test_the_later_of_two_kinds_of_windows_counts(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    stock = model.clone()
    stock.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        comfy.context_windows.get_matching_context_schedule("batched"),
        comfy.context_windows.get_matching_fuse_method("flat"),
        context_length=4,
    )
    comfy.context_windows.create_prepare_sampling_wrapper(stock)
    if hasattr(comfy.context_windows, "create_sampler_sample_wrapper"):
        comfy.context_windows.create_sampler_sample_wrapper(stock)
    with caplog.at_level("WARNING"):
        ours = with_causal_windows(stock, 4)
    assert "takes the place" in caplog.text
    assert relative(sample(bind(ours, adaptor), 10), sample(bind(model, adaptor), 10)) <= CLOSE
    ours.model_options["context_handler"] = stock.model_options["context_handler"]
    handler = bind(ours, adaptor).model_options["context_handler"]
    assert isinstance(handler, comfy.context_windows.IndexListContextHandler), "Apply leaves other windows alone"


def test_the_host_plans_memory_for_a_chunk_and_its_past_whatever_the_length(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptor = fresh_adaptor(model, frames=32)
    bound = bind(model, adaptor)
    ours, offloaded = with_causal_windows(bound, 4), with_causal_windows(bound, 4, offload=True)
    reverse = bind(with_causal_windows(model, 4), adaptor)
    runs = ((bound, 4), (bound, 33), (ours, 33), (ours, 40), (offloaded, 33), (reverse, 33))
    four, whole, chunks, longer, off, first = planned_bytes(
        monkeypatch, *(partial(sample, one, frames, cfg=1.0, steps=1) for one, frames in runs)
    )
    assert four == off < chunks == longer == first < whole


def test_the_host_plans_memory_for_the_tokens_of_earlier_frames_too(
    model: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = with_causal_windows(cross_frame(model), 4)
    runs = ((model, 33), (cross_frame(model), 33), (cross_frame(model, strength=0.0), 33), (ours, 33), (ours, 99))
    plain, whole, none, chunks, longer = planned_bytes(
        monkeypatch, *(partial(sample, one, frames, cfg=1.0, steps=1) for one, frames in runs)
    )
    assert chunks == longer < plain == none < whole


@pytest.mark.parametrize("offload", [False, True])
def test_a_past_in_main_memory_gives_the_same_clip(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch, offload: bool
) -> None:
    places = set()
    begin = FrameCache.begin_chunk
    monkeypatch.setattr(FrameCache, "begin_chunk", lambda cache: (places.add(cache.device), begin(cache)))
    bound = untrained(bind(model, adaptor))
    assert relative(sample(with_causal_windows(bound, 4, offload), 10), sample(bound, 10)) <= CLOSE
    assert places == {torch.device("cpu") if offload else None}


def test_chunks_of_no_frames_are_refused(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match="chunk_frames of Causal Windows must be 1 or more, found 0"):
        with_causal_windows(model, 0)
    assert [chunk.index_list for chunk in CausalWindows(3, clip_lengths=(4,)).chunks(8)] == [
        [0, 1, 2],
        [3],
        [4, 5, 6],
        [7],
    ]


@pytest.mark.parametrize(("rows", "counted"), [(8, [0, 1]), (16, [0, 1, 0, 1]), (20, [0, 1]), (4, [0, 1])])
def test_conditionings_are_counted_by_tiles_where_the_rows_are_whole_tiles(rows: int, counted: list[int]) -> None:
    options = {"cond_or_uncond": [0, 1], BATCH_FRAMES_KEY: 4}
    assert with_tiles_counted(rows, options)["cond_or_uncond"] == counted
