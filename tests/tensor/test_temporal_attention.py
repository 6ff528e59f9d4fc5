"""Directed temporal attention: by hand, then causality, span, cached past, rotary encoding and memory pieces."""

import math
from collections.abc import Callable

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from magicvideo.adaptor_unet import temporal_attention
from magicvideo.adaptor_unet.frame_layout import FrameLayout, directed_mask
from magicvideo.adaptor_unet.rotary import rotate, rotation
from magicvideo.adaptor_unet.temporal_attention import DirectedTemporalAttention, KvCache, Projection

CHANNELS, HEADS, SPAN, POSITIONS = 16, 4, 6, 5
Randomised = Callable[[nn.Module], nn.Module]


@pytest.fixture(params=[False, True], ids=["plain", "rotary"])
def trained(request: pytest.FixtureRequest, randomised: Randomised) -> DirectedTemporalAttention:
    return randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN, rotary=request.param))


@pytest.fixture
def identity() -> DirectedTemporalAttention:
    """One head of one channel whose projections all give back what they get."""
    attention = DirectedTemporalAttention(1, heads=1, span=16).requires_grad_(False)
    for projection in (attention.to_q, attention.to_k, attention.to_v, attention.to_out):
        projection.up.weight.fill_(1)
    return attention


def clip(frames: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(frames, POSITIONS, CHANNELS).to(dtype)


def by_definition(attention: DirectedTemporalAttention, z: Tensor, layout: FrameLayout) -> Tensor:
    """The formula in float64, frame by frame, head by head, with nothing shared with the source but the weights."""
    projections = [p.up.weight.double() for p in (attention.to_q, attention.to_k, attention.to_v)]
    q, k, v = (rearrange(z.double() @ w.mT, "f p (h d) -> h p f d", h=attention.heads) for w in projections)
    out = torch.empty_like(q)
    for i, (place, own_clip) in enumerate(zip(layout.positions, layout.clip_of, strict=True)):
        rows = zip(layout.positions, layout.clip_of, strict=True)
        seen = [j for j, (p, c) in enumerate(rows) if c == own_clip and 0 <= place - p < attention.span]
        scores = (q[:, :, i, None] * k[:, :, seen]).sum(-1) / math.sqrt(q.shape[-1])
        out[:, :, i] = (scores.softmax(-1)[..., None] * v[:, :, seen]).sum(2)
    out = rearrange(out, "h p f d -> f p (h d)")
    return out @ attention.to_out.up.weight.double().mT + attention.to_out.up.bias.double()


def test_two_frames_by_hand(identity: DirectedTemporalAttention) -> None:
    """Frame 0 sees only itself; frame 1 has scores 0 and 1, so weights 1 / (1 + e) and e / (1 + e)."""
    e = math.e
    out = identity(rearrange(torch.tensor([0.0, 1.0]), "f -> f 1 1"), FrameLayout.whole(1, 2))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, e / (1 + e)]))


def test_three_frames_by_hand(identity: DirectedTemporalAttention) -> None:
    """q = k = v = (1, 2, 3): frame 2 weighs them by e^3, e^6 and e^9."""
    out = identity(rearrange(torch.tensor([1.0, 2.0, 3.0]), "f -> f 1 1"), FrameLayout.whole(1, 3))
    second = (1 * math.exp(2) + 2 * math.exp(4)) / (math.exp(2) + math.exp(4))
    third = sum(v * math.exp(3 * v) for v in (1, 2, 3)) / sum(math.exp(3 * v) for v in (1, 2, 3))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, second, third]))


def test_scores_are_divided_by_the_root_of_a_heads_channels() -> None:
    """One head of four equal channels: scores 0 and 4 / sqrt(4) = 2."""
    attention = DirectedTemporalAttention(4, heads=1).requires_grad_(False)
    for projection in (attention.to_q, attention.to_k, attention.to_v, attention.to_out):
        projection.up.weight.copy_(torch.eye(4))
    z = repeat(torch.tensor([0.0, 1.0]), "f -> f 1 c", c=4)
    weight = math.exp(2) / (1 + math.exp(2))
    torch.testing.assert_close(attention(z, FrameLayout.whole(1, 2))[1, 0], torch.full((4,), weight))


@pytest.mark.parametrize(
    "layout",
    [
        FrameLayout.whole(1, SPAN),
        FrameLayout.whole(1, 3 * SPAN),
        FrameLayout(1, (0, 3, 5, 11), (0,) * 4),
        FrameLayout(1, (0, 8, 9, 10, 11), (0,) * 5),
        FrameLayout(1, (22, 23, 0, 1), (0,) * 4),
        FrameLayout(1, (2, 3, 0, 1, 2), (0, 0, 1, 1, 1)),
    ],
    ids=["whole", "long", "gaps", "anchor", "loop", "clips"],
)
def test_the_formula_holds_for_any_layout(randomised: Randomised, layout: FrameLayout) -> None:
    attention, z = randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN)), clip(layout.frames)
    torch.testing.assert_close(attention(z, layout).double(), by_definition(attention, z, layout), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_an_untrained_module_adds_nothing(rank: int) -> None:
    attention = DirectedTemporalAttention(CHANNELS, HEADS, SPAN, rank)
    assert attention(clip(4), FrameLayout.whole(1, 4)).count_nonzero() == 0


def test_masked_rows_sum_to_one(trained: DirectedTemporalAttention) -> None:
    """With values that are all one, attention gives back one whatever the weights, if they sum to one."""
    trained.to_v.up = nn.Linear(CHANNELS, CHANNELS).requires_grad_(False)
    trained.to_v.up.weight.zero_()
    trained.to_v.up.bias.fill_(1)
    trained.to_out.up.weight.copy_(torch.eye(CHANNELS))
    trained.to_out.up.bias.zero_()
    for layout in (FrameLayout.whole(1, 3 * SPAN), FrameLayout(1, (22, 23, 0, 1), (0, 0, 0, 0))):
        out = trained(clip(layout.frames), layout)
        torch.testing.assert_close(out, torch.ones_like(out))


def test_clips_do_not_mix(trained: DirectedTemporalAttention) -> None:
    z = clip(3 * 8)
    apart = torch.cat([trained(one, FrameLayout.whole(1, 8)) for one in z.chunk(3)])
    assert torch.equal(trained(z, FrameLayout.whole(3, 8)), apart)


def test_clips_of_one_window_do_not_mix(trained: DirectedTemporalAttention) -> None:
    z, layout = clip(5), FrameLayout(1, (2, 3, 0, 1, 2), (0, 0, 1, 1, 1))
    first = trained(z[:2], FrameLayout(1, (2, 3), (0, 0)))
    second = trained(z[2:], FrameLayout.whole(1, 3))
    torch.testing.assert_close(trained(z, layout), torch.cat([first, second]))


def test_positions_do_not_mix(trained: DirectedTemporalAttention) -> None:
    z, layout = clip(8), FrameLayout.whole(1, 8)
    changed = z.clone()
    changed[:, 2] = torch.randn(8, CHANNELS)
    before, after = trained(z, layout), trained(changed, layout)
    assert torch.equal(before[:, [0, 1, 3, 4]], after[:, [0, 1, 3, 4]])
    assert not torch.equal(before[:, 2], after[:, 2])


@pytest.mark.parametrize("frames", [SPAN, 3 * SPAN])
@pytest.mark.parametrize("changed_from", [1, 3, 5])
def test_later_frames_never_reach_earlier_ones(
    trained: DirectedTemporalAttention, frames: int, changed_from: int
) -> None:
    z, layout = clip(frames), FrameLayout.whole(1, frames)
    other = torch.cat([z[:changed_from], clip(frames - changed_from)])
    before, after = trained(z, layout), trained(other, layout)
    assert torch.equal(before[:changed_from], after[:changed_from])
    assert all(not torch.equal(x, y) for x, y in zip(before[changed_from:], after[changed_from:], strict=True))


def test_a_frame_reaches_all_within_the_span_and_none_behind_it(trained: DirectedTemporalAttention) -> None:
    z, layout = clip(3 * SPAN), FrameLayout.whole(1, 3 * SPAN)
    other = z.clone()
    other[4] = torch.randn(POSITIONS, CHANNELS)
    before, after = trained(z, layout), trained(other, layout)
    moved = [i for i in range(3 * SPAN) if not torch.equal(before[i], after[i])]
    assert moved == list(range(4, 4 + SPAN))


def test_a_frame_past_the_span_is_like_the_last_of_a_clip(randomised: Randomised) -> None:
    attention, z = randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN, rotary=True)), clip(3 * SPAN)
    whole = attention(z, FrameLayout.whole(1, 3 * SPAN))
    for last in (SPAN - 1, SPAN, 2 * SPAN + 1):
        alone = attention(z[last - SPAN + 1 : last + 1], FrameLayout.whole(1, SPAN))
        torch.testing.assert_close(whole[last], alone[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 8, 16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("span", [1, SPAN, 16])
def test_chunks_with_a_past_equal_the_whole(
    trained: DirectedTemporalAttention, chunk: int, batch: int, span: int
) -> None:
    trained.span, frames = span, 40
    z = clip(batch * frames)
    whole = rearrange(trained(z, FrameLayout.whole(batch, frames)), "(b f) p c -> b f p c", b=batch)
    z, pasts, out = rearrange(z, "(b f) p c -> b f p c", b=batch), [KvCache() for _ in range(batch)], []
    for start in range(0, frames, chunk):
        places = tuple(range(start, min(start + chunk, frames)))
        piece = rearrange(z[:, list(places)], "b f p c -> (b f) p c")
        seen = trained(piece, FrameLayout(batch, places, (0,) * len(places)), pasts)
        out.append(rearrange(seen, "(b f) p c -> b f p c", b=batch))
        kept = min(span - 1, places[-1] + 1)
        assert all(len(past.positions) == kept for past in pasts), "no more frames than the span asks for"
    assert (torch.cat(out, dim=1) - whole).norm() / whole.norm() < 1e-5


def test_a_past_holds_its_own_memory(trained: DirectedTemporalAttention) -> None:
    """A view of the chunk's keys would keep the whole chunk alive."""
    past = KvCache()
    trained(clip(16), FrameLayout.whole(1, 16), [past])
    assert past.positions == tuple(range(16 - SPAN + 1, 16))
    for k, v in past.pieces.values():
        assert k.untyped_storage().nbytes() == v.untyped_storage().nbytes() == (SPAN - 1) * POSITIONS * CHANNELS * 4


def test_a_past_can_wait_on_a_device_of_its_own(trained: DirectedTemporalAttention) -> None:
    past = KvCache(device=torch.device("meta"))
    trained(clip(4), FrameLayout.whole(1, 4), [past])
    assert {x.device.type for pair in past.pieces.values() for x in pair} == {"meta"}


def test_a_past_of_other_frames_changes_the_result(trained: DirectedTemporalAttention) -> None:
    z, layout, outs = clip(2), FrameLayout(1, (4, 5), (0, 0)), []
    for before in (clip(4), clip(4)):
        past = KvCache()
        trained(before, FrameLayout.whole(1, 4), [past])
        outs.append(trained(z, layout, [past]))
    assert not torch.allclose(*outs)


def test_rotary_encoding_by_hand() -> None:
    """One head of four channels at position 3: pairs (0, 1) and (2, 3) turn by 3 and by 3 / 100."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    (a, b), (c, d) = (math.cos(3), math.sin(3)), (math.cos(0.03), math.sin(0.03))
    expected = torch.tensor([1 * a - 2 * b, 1 * b + 2 * a, 3 * c - 4 * d, 3 * d + 4 * c])
    torch.testing.assert_close(rotate(x, (3,), heads=1).flatten(), expected)


def test_rotary_encoding_turns_every_head_alike_and_keeps_lengths() -> None:
    x = clip(7)
    turned = rotate(x, tuple(range(7)), HEADS)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    heads = [rotate(part, tuple(range(7)), 1) for part in x.chunk(HEADS, dim=-1)]
    assert torch.equal(turned, torch.cat(heads, dim=-1))


def test_rotary_encoding_depends_on_distances_only(randomised: Randomised) -> None:
    attention, z = randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN, rotary=True)), clip(5)
    near, gaps = (0, 1, 2, 3, 4), (0, 1, 2, 4, 5)
    here, shifted, spread = (
        attention(z, FrameLayout(1, positions, (0,) * 5)) for positions in (near, tuple(p + 37 for p in near), gaps)
    )
    torch.testing.assert_close(here, shifted, rtol=1e-4, atol=1e-5)
    assert torch.equal(here[:3], spread[:3])
    assert not torch.allclose(here[3:], spread[3:], rtol=1e-3), "another distance should show"


def test_rotary_encoding_differs_from_none(randomised: Randomised) -> None:
    attention, z, layout = (
        randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN)),
        clip(4),
        FrameLayout.whole(1, 4),
    )
    plain = attention(z, layout)
    attention.rotary = True
    turned = attention(z, layout)
    torch.testing.assert_close(plain[0], turned[0])
    assert all(not torch.allclose(x, y, rtol=1e-3) for x, y in zip(plain[1:], turned[1:], strict=True))


def test_without_rotary_only_the_order_counts(randomised: Randomised) -> None:
    attention, z = randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN)), clip(3)
    outs = [attention(z, FrameLayout(1, positions, (0,) * 3)) for positions in ((0, 1, 2), (0, 2, 5))]
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize(("rank", "expected"), [(0, 4 * 32 * 32 + 32), (4, 4 * (32 * 4 + 4 * 32) + 32)])
def test_a_rank_gives_the_parameters_it_should(rank: int, expected: int) -> None:
    attention = DirectedTemporalAttention(32, 4, rank=rank)
    assert sum(parameter.numel() for parameter in attention.parameters()) == expected


def test_a_low_rank_projection_is_the_product_of_its_two_matrices() -> None:
    projection, z = Projection(8, rank=2), torch.randn(5, 8)
    product = projection.up.weight @ projection.down.weight
    assert product.shape == (8, 8) and torch.linalg.matrix_rank(product) == 2
    torch.testing.assert_close(projection(z), z @ product.mT)


@pytest.mark.parametrize("rows", [1, HEADS, 2 * HEADS, 3 * HEADS])
def test_pieces_of_positions_do_not_change_the_result(
    trained: DirectedTemporalAttention, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    z, layout, pieces = clip(2 * 8), FrameLayout.whole(2, 8), []
    whole = trained(z, layout)
    monkeypatch.setattr(temporal_attention, "MOST_ROWS_CPU", rows)
    monkeypatch.setattr(trained, "_piece", lambda *args: pieces.append(args[0].shape[1]) or original(*args))
    original = type(trained)._piece.__get__(trained)
    torch.testing.assert_close(trained(z, layout), whole)
    assert max(pieces) == max(1, rows // HEADS) and sum(pieces) == 2 * POSITIONS


def test_pieces_of_positions_keep_a_past_each(
    trained: DirectedTemporalAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = clip(12)
    whole = trained(z, FrameLayout.whole(1, 12))
    monkeypatch.setattr(temporal_attention, "MOST_ROWS_CPU", 2 * HEADS)
    past = KvCache()
    chunks = [trained(z[i : i + 4], FrameLayout(1, tuple(range(i, i + 4)), (0,) * 4), [past]) for i in (0, 4, 8)]
    torch.testing.assert_close(torch.cat(chunks), whole, rtol=1e-4, atol=1e-5)
    assert sorted(past.pieces) == [0, 2, 4]


def test_no_attention_call_gets_more_rows_than_back_ends_take(
    trained: DirectedTemporalAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def recording(q: Tensor, *args: Tensor, **kwargs: object) -> Tensor:
        calls.append(q.shape[0] * q.shape[1])
        return attend(q, *args, **kwargs)

    attend = temporal_attention.attend
    monkeypatch.setattr(temporal_attention, "attend", recording)
    trained(torch.randn(2, 20_000, CHANNELS), FrameLayout.whole(1, 2))
    assert sum(calls) == 20_000 * HEADS
    assert max(calls) <= temporal_attention.MOST_ROWS_CPU < temporal_attention.MOST_ROWS < 2**16


@pytest.mark.parametrize("frames", [1, 16, 64, 65])
@pytest.mark.parametrize("masked", [False, True])
def test_both_ways_to_attend_are_the_fused_attention_of_torch(frames: int, masked: bool) -> None:
    q, k, v = torch.randn(3, 5, HEADS, frames, 8)
    mask = FrameLayout.whole(1, frames).directed_mask(max(1, frames // 2)) if masked else None
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    torch.testing.assert_close(temporal_attention.attend(q, k, v, mask), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_near_the_float_result(trained: DirectedTemporalAttention, dtype: torch.dtype) -> None:
    z, layout = clip(2 * SPAN, dtype), FrameLayout.whole(1, 2 * SPAN)
    expected = trained(z.float(), layout)
    out = trained.to(dtype)(z, layout)
    assert out.dtype == dtype
    assert (out.float() - expected).norm() / expected.norm() < 0.03


def test_gradients_reach_every_weight(randomised: Randomised) -> None:
    attention = randomised(DirectedTemporalAttention(CHANNELS, HEADS, SPAN, rank=2, rotary=True)).requires_grad_(True)
    attention(clip(4), FrameLayout.whole(1, 4)).square().sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in attention.parameters())


def test_the_first_training_step_moves_the_output_alone() -> None:
    """The zero output projection is where training starts: it gets a gradient although it adds nothing."""
    attention = DirectedTemporalAttention(CHANNELS, HEADS, SPAN)
    (attention(clip(4), FrameLayout.whole(1, 4)) - 1).square().sum().backward()
    assert attention.to_out.up.weight.grad.count_nonzero()
    assert not attention.to_q.up.weight.grad.count_nonzero()


def test_layers_come_from_the_given_operations() -> None:
    class Operations:
        class Linear(nn.Linear):
            pass

    attention = DirectedTemporalAttention(CHANNELS, HEADS, SPAN, rank=2, operations=Operations, device="meta")
    layers = [module for module in attention.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 8
    assert all(type(layer) is Operations.Linear and layer.weight.is_meta for layer in layers)


def test_the_second_step_of_a_long_clip_in_chunks_makes_no_mask_and_no_rotation_anew() -> None:
    attention, z = DirectedTemporalAttention(4, heads=1, span=16, rotary=True), torch.zeros(8, 1, 4)

    def made_in_a_step() -> int:
        before = sum(kept.cache_info().misses for kept in (directed_mask, rotation))
        past = [KvCache()]
        for start in range(0, 1000, 8):
            attention(z, FrameLayout(1, tuple(range(start, start + 8)), (0,) * 8), past)
        return sum(kept.cache_info().misses for kept in (directed_mask, rotation)) - before

    assert made_in_a_step() > 0
    assert made_in_a_step() == 0
