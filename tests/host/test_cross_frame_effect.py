"""Cross-frame attention in the host's UNet: the formula, and life with other nodes' attention."""

from collections.abc import Callable

import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from small_host import TOKENS, Sampler, noise_for, other_family
from stock_windows import NO_ANCHOR, with_windows
from torch import Tensor
from ways import cross_frame, sharp_model, with_cross_frame_attention

from magicvideo.adaptor_unet.host.binding import with_causal_windows
from measures import relative

BLOCKS = [("input", 1), ("input", 3), ("middle", 0), ("output", 0), ("output", 1), ("output", 2), ("output", 3)]


@pytest.fixture
def model() -> ModelPatcher:
    return sharp_model()


def one_by_one(chosen: Callable[[int], list[int]]) -> Callable:
    """Another pack's self-attention that looks back, from the definition, for a batch of one clip without guidance."""

    def attention(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        rows = []
        for i in range(len(q)):
            sees = [i, *chosen(i)]
            keys, values = (torch.cat([x[j] for j in sees])[None] for x in (k, v))
            rows.append(optimized_attention(q[i : i + 1], keys, values, options["n_heads"]))
        return torch.cat(rows)

    return attention


def replaced(model: ModelPatcher, attention: Callable, blocks: list[tuple[str, int]]) -> ModelPatcher:
    other = model.clone()
    for block in blocks:
        other.set_model_attn1_replace(attention, *block)
    return other


RULES = {
    "first and previous": lambda i: sorted({0, i - 1}) if i else [],
    "first": lambda i: [0] if i else [],
    "last": lambda i: list(range(max(0, i - 3), i)),
}


@pytest.mark.take_turns
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize(("where", "blocks"), [("all", BLOCKS), ("middle and decoder", BLOCKS[2:])])
def test_frames_read_the_tokens_of_the_chosen_frames_at_the_chosen_places(
    model: ModelPatcher, sample: Sampler, rule: str, where: str, blocks: list
) -> None:
    out = sample(with_cross_frame_attention(model, look_back=rule, last_frames=3, where=where), 6, cfg=1.0)
    assert relative(out, sample(replaced(model, one_by_one(RULES[rule]), blocks), 6, cfg=1.0)) < 1e-5
    assert relative(out, sample(model, 6, cfg=1.0)) > 1e-3, "it should show"


def test_the_sites_are_where_the_model_has_self_attention(model: ModelPatcher, sample: Sampler) -> None:
    seen = set()

    def look(n: Tensor, options: dict) -> Tensor:
        seen.add(options["block"])
        return n

    watched = model.clone()
    watched.set_model_attn1_output_patch(look)
    sample(watched, 1, steps=1)
    assert seen == set(BLOCKS)


def test_half_the_strength_is_half_the_way_in_one_attention(model: ModelPatcher, sample: Sampler) -> None:
    """One block only, so that what comes behind it is linear in nothing but can be caught where it comes out."""
    caught = {}

    def catch(name: str) -> Callable:
        def patch(n: Tensor, options: dict) -> Tensor:
            if options["block"] == ("middle", 0):
                caught[name] = n.clone()
            return n

        return patch

    for name, strength in (("none", 0.0), ("half", 0.5), ("whole", 1.0)):
        bound = with_cross_frame_attention(model, strength=strength)
        bound.set_model_attn1_output_patch(catch(name))
        sample(bound, 4, cfg=1.0, steps=1)
    torch.testing.assert_close(caught["half"], (caught["none"] + caught["whole"]) / 2)
    assert torch.equal(caught["whole"][0], caught["none"][0])
    assert not torch.allclose(caught["whole"][1], caught["none"][1], atol=1e-3)


def test_a_later_node_counts_where_two_act(model: ModelPatcher, sample: Sampler) -> None:
    both = with_cross_frame_attention(
        with_cross_frame_attention(model, look_back="first", where="all"), look_back="last", last_frames=3
    )
    expected = replaced(model, one_by_one(RULES["last"]), BLOCKS[2:])
    expected = replaced(expected, one_by_one(RULES["first"]), BLOCKS[:2])
    assert relative(sample(both, 5, cfg=1.0), sample(expected, 5, cfg=1.0)) < 1e-5


@pytest.mark.parametrize("order", ["before", "behind"])
def test_attention_patches_of_other_nodes_act_as_ever(model: ModelPatcher, sample: Sampler, order: str) -> None:
    """They change the input, add tokens of their own to what is read, and change the output."""

    def with_patches(bound: ModelPatcher) -> ModelPatcher:
        patched = bound.clone()
        patched.set_model_attn1_patch(
            lambda n, k, v, options: (0.9 * n, torch.cat([k, k.flip(2)], 1), v.repeat(1, 2, 1))
        )
        patched.set_model_attn1_output_patch(lambda n, options: 0.8 * n)
        return patched

    bound = cross_frame(with_patches(model)) if order == "before" else with_patches(cross_frame(model))
    expected = with_patches(replaced(model, one_by_one(RULES["first and previous"]), BLOCKS))
    assert relative(sample(bound, 5, cfg=1.0), sample(expected, 5, cfg=1.0)) < 1e-5


@pytest.mark.parametrize("order", ["before", "behind"])
def test_self_attention_that_another_node_replaces_stays_that_nodes(
    model: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture, order: str
) -> None:
    """Such a node may need as many keys as queries."""
    theirs = {"middle": lambda q, k, v, options: v, "rest": one_by_one(RULES["first and previous"])}
    middle, rest = BLOCKS[2:3], BLOCKS[3:]
    if order == "before":
        bound = with_cross_frame_attention(replaced(model, theirs["middle"], middle))
    else:
        bound = replaced(with_cross_frame_attention(model), theirs["middle"], middle)
    with caplog.at_level("WARNING"):
        out = sample(bound, 5, cfg=1.0)
    told = [record for record in caplog.records if "leaves self-attention to another node" in record.message]
    assert len(told) == 1 and "middle_block.1.transformer_blocks.0" in told[0].message, "said once"
    expected = replaced(replaced(model, theirs["middle"], middle), theirs["rest"], rest)
    assert relative(out, sample(expected, 5, cfg=1.0)) < 1e-5


def test_a_replacement_of_one_transformer_is_seen_too(model: ModelPatcher, sample: Sampler) -> None:
    bound = with_cross_frame_attention(model)
    bound.set_model_attn1_replace(lambda q, k, v, options: v, "middle", 0, 0)
    expected = replaced(bound, lambda q, k, v, options: v, BLOCKS[2:3])
    assert torch.equal(sample(bound, 4), sample(expected, 4))


def test_an_attention_function_that_another_node_sets_is_used(model: ModelPatcher, sample: Sampler) -> None:
    rows = []

    def override(function: Callable, *args: object, **kwargs: object) -> Tensor:
        rows.append(args[0].shape[0])
        return function(*args, **kwargs)

    bound = with_cross_frame_attention(model, where="all")
    expected = sample(bound, 4, cfg=1.0, steps=1)
    bound.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(sample(bound, 4, cfg=1.0, steps=1), expected)
    assert rows.count(1) == 2 * len(BLOCKS), "frame 1, which reads nothing else, and frame 2, which reads one other"


def test_the_stock_perturbed_attention_guidance_runs(model: ModelPatcher, sample: Sampler) -> None:
    guided = PerturbedAttentionGuidance().execute(with_cross_frame_attention(model), 2.0)
    out = sample(getattr(guided, "result", guided)[0], 4)
    assert out.isfinite().all() and not torch.equal(out, sample(with_cross_frame_attention(model), 4))


@pytest.mark.parametrize("order", ["before", "behind"])
def test_frames_that_the_stock_hypertile_cuts_look_back_tile_by_tile(
    model: ModelPatcher, sample: Sampler, order: str
) -> None:
    def tiled(patched: ModelPatcher) -> ModelPatcher:
        made = HyperTile().execute(patched, 32, 1, 0, False)
        return getattr(made, "result", made)[0]

    plain = sample(tiled(model), 4, size=8)
    out = sample(cross_frame(tiled(model)) if order == "before" else tiled(cross_frame(model)), 4, size=8)
    assert torch.equal(out[0], plain[0]) and relative(out[1:], plain[1:]) > 1e-3
    assert not torch.equal(plain, sample(model, 4, size=8)), "the tiles should show"
    assert relative(sample(with_causal_windows(tiled(cross_frame(model)), 2), 4, size=8), out) < 1e-4


def test_in_the_hosts_own_windows_a_frame_looks_at_its_window(model: ModelPatcher, sample: Sampler) -> None:
    plain, out = (sample(with_windows(m, 4, 0, "batched", **NO_ANCHOR), 8) for m in (model, cross_frame(model)))
    assert torch.equal(out[[0, 4]], plain[[0, 4]]), "the first of a window stands for the clip's first"
    noise = noise_for(8)
    alone = sample(cross_frame(model), 4, noise=noise[4:])
    windowed = sample(with_windows(cross_frame(model), 4, 0, "batched", **NO_ANCHOR), 8, noise=noise)
    assert relative(windowed[4:], alone) < 1e-4


def test_it_acts_between_its_percentages_only(model: ModelPatcher, sample: Sampler) -> None:
    calls = []

    def override(function: Callable, *args: object, **kwargs: object) -> Tensor:
        calls.append(args[1].shape[1] > args[0].shape[1] and args[1].shape[1] != TOKENS)
        return function(*args, **kwargs)

    bound = with_cross_frame_attention(model, look_back="first", start_percent=0.3, end_percent=0.7)
    bound.model_options["transformer_options"]["optimized_attention_override"] = override
    steps = []

    def callback(*args: object) -> None:
        steps.append(any(calls))
        calls.clear()

    sample(bound, 2, steps=10, callback=callback, cfg=1.0)
    assert steps[0] is steps[-1] is False and any(steps)
    assert torch.equal(sample(with_cross_frame_attention(model, start_percent=1.0), 4), sample(model, 4))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"look_back": "next"}, "look_back must be one of first and previous, first, last; found 'next'"),
        ({"last_frames": 0}, "last_frames must be 1 or more, found 0"),
        (
            {"where": "encoder"},
            "where of Cross-Frame Attention must be one of middle and decoder, all; found",
        ),
        ({"strength": 1.1}, "strength of Cross-Frame Attention must lie in 0 to 1, found 1.1"),
        ({"strength": float("nan")}, "strength of Cross-Frame Attention must be a finite number"),
        ({"start_percent": 2.0}, "start_percent and end_percent of Cross-Frame Attention must lie in 0 to 1"),
        ({"frames_per_clip": -1}, "frames_per_clip of Cross-Frame Attention must be 0 or more"),
    ],
)
def test_unusable_settings_are_refused(model: ModelPatcher, settings: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        with_cross_frame_attention(model, **settings)


def test_another_family_and_a_batch_of_no_whole_clips_are_refused(model: ModelPatcher, sample: Sampler) -> None:
    other = other_family("Flux")
    with pytest.raises(ValueError, match="works with Stable Diffusion .* models, but this model is Flux"):
        with_cross_frame_attention(other)
    with pytest.raises(ValueError, match="frames_per_clip of Cross-Frame Attention is 3, but the latent batch holds 4"):
        sample(with_cross_frame_attention(model, frames_per_clip=3), 4)
