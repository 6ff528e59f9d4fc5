"""The temporal transformer against its formula worked out step by step, and what frames and clips may see."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, group_norm, layer_norm

from magicvideo.adaptor_unet import motion_module, temporal_attention
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.motion_module import (
    MotionModule,
    MotionModuleConfig,
    TemporalTransformer,
    frames_apart,
    frames_beside,
    position_encoding,
    positions_in_call,
)

C, HEADS = 32, 8
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def transformer() -> TemporalTransformer:
    """None of its weights at its start."""
    return random_weights(TemporalTransformer(C, HEADS))


def random_weights(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module.requires_grad_(False)


def encoding_by_hand(place: int, channel: int) -> float:
    angle = place * math.exp(-2 * (channel // 2) * math.log(10_000) / C)
    return math.cos(angle) if channel % 2 else math.sin(angle)


def attention_by_hand(weights: dict[str, Tensor], n: Tensor, key_scale: float) -> Tensor:
    """f c -> f c, at one position, head by head and frame by frame."""
    q, k, v = (n @ weights[f"to_{part}.weight"].T for part in "qkv")
    out, d = torch.zeros_like(q), C // HEADS
    for head in range(HEADS):
        own = slice(head * d, (head + 1) * d)
        for frame in range(len(n)):
            weight = torch.softmax(key_scale * (k[:, own] @ q[frame, own]) / math.sqrt(d), dim=0)
            out[frame, own] = weight @ v[:, own]
    return out @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]


def below(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): x for key, x in weights.items() if key.startswith(f"{name}.")}


def clip_by_hand(transformer: TemporalTransformer, x: Tensor, key_scale: float = 1.0) -> Tensor:
    """f c h w -> f c h w: what the module adds, one position after the other."""
    top = dict(transformer.named_parameters())
    block = below(top, "transformer_blocks.0")
    normed = group_norm(x, 32, top["norm.weight"], top["norm.bias"], eps=1e-6)
    table = torch.tensor([[encoding_by_hand(place, channel) for channel in range(C)] for place in range(len(x))])
    added = torch.zeros_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            z = normed[:, :, row, column] @ top["proj_in.weight"].T + top["proj_in.bias"]
            for number in (0, 1):
                norm = below(block, f"norms.{number}")
                n = layer_norm(z, (C,), norm["weight"], norm["bias"]) + table
                z = z + attention_by_hand(below(block, f"attention_blocks.{number}"), n, key_scale)
            wide = layer_norm(z, (C,), block["ff_norm.weight"], block["ff_norm.bias"])
            wide = wide @ block["ff.net.0.proj.weight"].T + block["ff.net.0.proj.bias"]
            value, gate = wide[:, : 4 * C], wide[:, 4 * C :]
            z = z + (value * gelu(gate)) @ block["ff.net.2.weight"].T + block["ff.net.2.bias"]
            added[:, :, row, column] = z @ top["proj_out.weight"].T + top["proj_out.bias"]
    return added


@pytest.mark.parametrize("key_scale", [1.0, 1.7])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_it_is_the_formula(transformer: TemporalTransformer, strength: float, key_scale: float) -> None:
    x = torch.randn(5, C, 2, 3)
    expected = x + strength * clip_by_hand(transformer, x, key_scale)
    torch.testing.assert_close(transformer(x, FrameLayout.whole(1, 5), strength, key_scale), expected, **CLOSE)
    assert (expected - x).abs().max() > 0.3


def test_positions_are_told_by_sines_and_cosines() -> None:
    table = position_encoding(40, C)
    for place, channel in ((0, 0), (0, 1), (1, 0), (7, 4), (39, 31)):
        assert float(table[place, channel]) == pytest.approx(encoding_by_hand(place, channel), abs=1e-5)


def test_clips_and_conditionings_of_a_batch_do_not_mix(transformer: TemporalTransformer) -> None:
    x = torch.randn(3 * 4, C, 2, 2)
    apart = torch.cat([transformer(clip, FrameLayout.whole(1, 4)) for clip in x.chunk(3)])
    torch.testing.assert_close(transformer(x, FrameLayout.whole(3, 4)), apart, **CLOSE)


def test_clips_in_one_window_do_not_see_each_other_and_each_counts_from_0(transformer: TemporalTransformer) -> None:
    x = torch.randn(5, C, 2, 2)
    layout = FrameLayout(1, (2, 3, 4, 0, 1), (0, 0, 0, 1, 1))
    assert positions_in_call(layout) == (0, 1, 2, 0, 1)
    apart = torch.cat([transformer(x[:3], FrameLayout.whole(1, 3)), transformer(x[3:], FrameLayout.whole(1, 2))])
    torch.testing.assert_close(transformer(x, layout), apart, **CLOSE)


def test_a_window_somewhere_in_a_clip_is_what_it_is_alone(transformer: TemporalTransformer) -> None:
    x = torch.randn(4, C, 2, 2)
    alone = transformer(x, FrameLayout.whole(1, 4))
    assert torch.equal(transformer(x, FrameLayout(1, (15, 16, 17, 18), (0, 0, 0, 0))), alone)
    strided = FrameLayout(1, (1, 4, 7, 10), (0, 0, 0, 0))
    assert torch.equal(transformer(x, strided), alone)


def test_frames_see_later_ones_and_know_their_order(transformer: TemporalTransformer) -> None:
    x = torch.randn(4, C, 2, 2)
    layout = FrameLayout.whole(1, 4)
    out = transformer(x, layout)
    changed = transformer(torch.cat([x[:3], torch.randn(1, C, 2, 2)]), layout)
    assert (changed[0] - out[0]).abs().max() > 1e-3
    assert (transformer(x.flip(0), layout).flip(0) - out).abs().max() > 1e-3


def test_pieces_make_no_difference(transformer: TemporalTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2 * 3, C, 4, 5)
    whole = transformer(x, FrameLayout.whole(2, 3))
    monkeypatch.setattr(motion_module, "MOST_TOKENS_CPU", 7)
    torch.testing.assert_close(transformer(x, FrameLayout.whole(2, 3)), whole, **CLOSE)


@pytest.mark.parametrize("mixed", [False, True], ids=["one clip", "two clips"])
def test_the_fused_attention_gives_the_same(
    transformer: TemporalTransformer, monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    x, layout = torch.randn(4, C, 2, 2), FrameLayout(1, (0, 1, 0, 1) if mixed else (0, 1, 2, 3), (0, 0, mixed, mixed))
    written = transformer(x, layout)
    monkeypatch.setattr(temporal_attention, "FEW_FRAMES", 1)
    torch.testing.assert_close(transformer(x, layout), written, **CLOSE)


def test_what_came_in_stays_as_it_was(transformer: TemporalTransformer) -> None:
    x = torch.randn(4, C, 2, 2)
    before = x.clone()
    transformer(x, FrameLayout.whole(1, 4))
    assert torch.equal(x, before)


def test_frames_beside_each_other_and_apart_again() -> None:
    x = torch.randn(2 * 3, 4, 5, 6)
    beside = frames_beside(x, 3)
    assert torch.equal(beside[1, :, 5:10], x[4]) and torch.equal(frames_apart(beside, 3), x)


@pytest.mark.parametrize("mid", [False, True])
def test_a_module_has_one_transformer_for_each_place(mid: bool) -> None:
    module = MotionModule(MotionModuleConfig("AnimateDiff v2" if mid else "AnimateDiff v3", mid=mid), device="meta")
    places = module.places()
    assert len(places) == 20 + mid
    assert places["down_blocks.2.motion_modules.1"] == places["up_blocks.0.motion_modules.2"] == 1280
    assert places["up_blocks.3.motion_modules.2"] == places["down_blocks.0.motion_modules.0"] == 320
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(453.2e6 if mid else 417.1e6, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "SVD"}, "kind must be one of"),
        ({"widths": ()}, "widths must be multiples of 32"),
        ({"widths": (320, 48)}, "widths must be multiples of 32"),
        ({"widths": (32_768,)}, "widths must be multiples of 32"),
        ({"heads": 7}, "7 heads cannot share"),
        ({"depth": 0}, "at most 16 levels"),
        ({"positions": 0}, "positions must be a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MotionModuleConfig(**{"kind": "AnimateDiff v3"} | settings)
