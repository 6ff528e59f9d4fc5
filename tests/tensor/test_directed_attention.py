"""Directed attention with given queries, keys and values, against the formula written out frame by frame."""

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from magicvideo.adaptor_unet import directed_attention as module
from magicvideo.adaptor_unet.directed_attention import SeenFrames, directed_attention
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.look_back import LookBack, seen_frames

RULES = [LookBack(), LookBack("first"), LookBack("last", 3)]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As the host's: keys and values that are not cut as the queries are, are cut here."""
    return scaled_dot_product_attention(q, *(x.reshape(*q.shape[:-2], -1, x.shape[-1]) for x in (k, v)))


def tokens(rows: int, positions: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(3, rows, positions, 8, generator=torch.Generator().manual_seed(seed)).unbind()


def by_hand(q: Tensor, k: Tensor, v: Tensor, frames: int, look_back: LookBack, strength: float) -> Tensor:
    """One frame at a time, from the definition."""
    out = []
    for row in range(len(q)):
        clip = row - row % frames
        sees = [clip + i for i in seen_frames(look_back, FrameLayout.whole(1, frames))[row % frames]]
        directed = attention(q[row], torch.cat([k[i] for i in sees]), torch.cat([v[i] for i in sees]))
        out.append((1 - strength) * attention(q[row], k[row], v[row]) + strength * directed)
    return torch.stack(out)


@pytest.mark.parametrize("look_back", RULES)
@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("most", [1, 20, 16_384])
def test_frames_read_their_own_and_the_chosen_frames_tokens(
    monkeypatch: pytest.MonkeyPatch, look_back: LookBack, strength: float, most: int
) -> None:
    monkeypatch.setattr(module, "MOST_QUERIES", most)
    q, k, v = tokens(2 * 5)
    out = directed_attention(q, k, v, FrameLayout.whole(2, 5), look_back, attention, strength)
    torch.testing.assert_close(out, by_hand(q, k, v, 5, look_back, strength))


@pytest.mark.parametrize("look_back", RULES)
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_with_their_past_equal_the_whole(look_back: LookBack, chunk: int) -> None:
    runs, frames = 2, 6
    q, k, v = tokens(runs * frames)
    whole = directed_attention(q, k, v, FrameLayout.whole(runs, frames), look_back, attention)
    past, parts = [SeenFrames() for _ in range(runs)], []
    for start in range(0, frames, chunk):
        own = tuple(range(start, min(start + chunk, frames)))
        rows = [run * frames + i for run in range(runs) for i in own]
        layout = FrameLayout(runs, own, (0,) * len(own))
        part = directed_attention(q[rows], k[rows], v[rows], layout, look_back, attention, past=past)
        parts.append(rearrange(part, "(b f) p c -> b f p c", b=runs))
    torch.testing.assert_close(rearrange(torch.cat(parts, 1), "b f p c -> (b f) p c"), whole)


def test_the_past_holds_no_more_than_is_looked_at_and_waits_where_it_is_told() -> None:
    past = SeenFrames(device=torch.device("meta"))
    q, k, v = tokens(5)
    directed_attention(q, k, v, FrameLayout.whole(1, 5), LookBack(), attention, past=[past])
    assert past.positions == (0, 4) and past.k.shape == past.v.shape == (2, 9, 8)
    assert past.k.device.type == "meta"


@pytest.mark.parametrize("keys_cut", [True, False])
def test_frames_cut_into_tiles_read_the_same_tile_of_earlier_frames(keys_cut: bool) -> None:
    """Some nodes cut the queries into tiles and leave keys and values to the attention's own reshape."""
    q, k, v = tokens(2 * 3 * 4)
    if keys_cut:
        given = (k, v)
    else:
        given = tuple(rearrange(x, "(n t) p c -> n (t p) c", t=4) for x in (k, v))
    out = directed_attention(q, *given, FrameLayout.whole(2, 3), LookBack(), attention)
    for tile in range(4):
        one = [x[tile::4] for x in (q, k, v)]
        torch.testing.assert_close(out[tile::4], by_hand(*one, 3, LookBack(), 1.0))


@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_frame_that_looks_at_none_gets_the_plain_attention_bit_for_bit(strength: float, dtype: torch.dtype) -> None:
    """Also where attention rounds otherwise in a batch of another size, as the host's does in half precision."""

    def rounding(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v) + (0.01 * len(q) if dtype is not torch.float32 else 0)

    q, k, v = (x.to(dtype) for x in tokens(4))
    out = directed_attention(q, k, v, FrameLayout.whole(2, 2), LookBack(), rounding, strength)
    plain = rounding(q, k, v)
    assert torch.equal(out[::2], plain[::2]) and not torch.equal(out[1::2], plain[1::2])


@pytest.mark.parametrize("past", [False, True])
def test_frames_that_all_look_at_none_cost_the_hosts_own_call(past: bool) -> None:
    q, k, v = tokens(4)
    calls, before = [], [SeenFrames() for _ in range(4)] if past else []
    layout = FrameLayout.whole(4, 1)
    directed_attention(
        q, k, v, layout, LookBack(), lambda *given: calls.append(given) or attention(*given), past=before
    )
    assert len(calls) == 1 and all(x is y for x, y in zip(calls[0], (q, k, v), strict=True))


@pytest.mark.parametrize(("dtype", "plain"), [(torch.float32, [1]), (torch.float16, [8])])
def test_no_attention_call_but_the_hosts_own_holds_more_queries_than_it_may(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, plain: list[int]
) -> None:
    monkeypatch.setattr(module, "MOST_QUERIES", 2 * 9)
    rows = []
    q, k, v = (x.to(dtype) for x in tokens(8))
    directed_attention(
        q, k, v, FrameLayout.whole(1, 8), LookBack(), lambda *given: rows.append(len(given[0])) or attention(*given)
    )
    assert rows == [*plain, 1, 2, 2, 2]


def test_a_chunk_behind_the_first_needs_no_plain_attention() -> None:
    q, k, v = (x.half() for x in tokens(3))
    past, rows = [SeenFrames()], []
    counted = lambda *given: rows.append(len(given[0])) or attention(*given)  # noqa: E731
    for start in (0, 3):
        rows.clear()
        layout = FrameLayout(1, tuple(range(start, start + 3)), (0,) * 3)
        directed_attention(q, k, v, layout, LookBack(), counted, past=past)
    assert rows == [3]
