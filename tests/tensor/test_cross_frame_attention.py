"""Cross-frame attention with given queries, keys and values, against the formula written out frame by frame."""

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from magicvideo.adaptor_unet import cross_frame_attention as module
from magicvideo.adaptor_unet.cross_frame_attention import (
    CrossFrameKvCache,
    LookBack,
    cross_frame_attention,
    seen_frames,
)
from magicvideo.adaptor_unet.frame_layout import FrameLayout

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
    out = cross_frame_attention(q, k, v, FrameLayout.whole(2, 5), look_back, attention, strength)
    torch.testing.assert_close(out, by_hand(q, k, v, 5, look_back, strength))


@pytest.mark.parametrize("look_back", RULES)
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_with_their_past_equal_the_whole(look_back: LookBack, chunk: int) -> None:
    batch, frames = 2, 6
    q, k, v = tokens(batch * frames)
    whole = cross_frame_attention(q, k, v, FrameLayout.whole(batch, frames), look_back, attention)
    past, parts = [CrossFrameKvCache() for _ in range(batch)], []
    for start in range(0, frames, chunk):
        own = tuple(range(start, min(start + chunk, frames)))
        rows = [row * frames + i for row in range(batch) for i in own]
        layout = FrameLayout(batch, own, (0,) * len(own))
        part = cross_frame_attention(q[rows], k[rows], v[rows], layout, look_back, attention, past=past)
        parts.append(rearrange(part, "(b f) p c -> b f p c", b=batch))
    torch.testing.assert_close(rearrange(torch.cat(parts, 1), "b f p c -> (b f) p c"), whole)


def test_the_past_holds_no_more_than_is_looked_at_and_waits_where_it_is_told() -> None:
    past = CrossFrameKvCache(device=torch.device("meta"))
    q, k, v = tokens(5)
    cross_frame_attention(q, k, v, FrameLayout.whole(1, 5), LookBack(), attention, past=[past])
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
    out = cross_frame_attention(q, *given, FrameLayout.whole(2, 3), LookBack(), attention)
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
    out = cross_frame_attention(q, k, v, FrameLayout.whole(2, 2), LookBack(), rounding, strength)
    plain = rounding(q, k, v)
    assert torch.equal(out[::2], plain[::2]) and not torch.equal(out[1::2], plain[1::2])


@pytest.mark.parametrize("past", [False, True])
def test_frames_that_all_look_at_none_cost_the_hosts_own_call(past: bool) -> None:
    q, k, v = tokens(4)
    calls, before = [], [CrossFrameKvCache() for _ in range(4)] if past else []
    layout = FrameLayout.whole(4, 1)
    cross_frame_attention(
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
    cross_frame_attention(
        q, k, v, FrameLayout.whole(1, 8), LookBack(), lambda *given: rows.append(len(given[0])) or attention(*given)
    )
    assert rows == [*plain, 1, 2, 2, 2]


def test_a_chunk_behind_the_first_needs_no_plain_attention() -> None:
    q, k, v = (x.half() for x in tokens(3))
    past, rows = [CrossFrameKvCache()], []
    counted = lambda *given: rows.append(len(given[0])) or attention(*given)  # noqa: E731
    for start in (0, 3):
        rows.clear()
        layout = FrameLayout(1, tuple(range(start, start + 3)), (0,) * 3)
        cross_frame_attention(q, k, v, layout, LookBack(), counted, past=past)
    assert rows == [3]


FIVE = FrameLayout.whole(1, 5)


@pytest.mark.parametrize(
    ("look_back", "seen"),
    [
        (LookBack("first"), ((0,), (1, 0), (2, 0), (3, 0), (4, 0))),
        (LookBack("first and previous"), ((0,), (1, 0), (2, 0, 1), (3, 0, 2), (4, 0, 3))),
        (LookBack("last", 1), ((0,), (1, 0), (2, 1), (3, 2), (4, 3))),
        (LookBack("last", 2), ((0,), (1, 0), (2, 0, 1), (3, 1, 2), (4, 2, 3))),
        (LookBack("last", 9), ((0,), (1, 0), (2, 0, 1), (3, 0, 1, 2), (4, 0, 1, 2, 3))),
    ],
)
def test_each_rule_by_hand(look_back: LookBack, seen: tuple) -> None:
    assert seen_frames(look_back, FIVE) == seen


@pytest.mark.parametrize("look_back", [LookBack(), LookBack("first"), LookBack("last", 1), LookBack("last", 3)])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_that_keep_what_is_chosen_see_what_the_whole_sees(look_back: LookBack, chunk: int) -> None:
    whole = seen_frames(look_back, FrameLayout.whole(1, 7))
    past: tuple[int, ...] = ()
    for start in range(0, 7, chunk):
        own = tuple(range(start, min(start + chunk, 7)))
        known = past + own
        seen = seen_frames(look_back, FrameLayout(1, own, (0,) * len(own)), past)
        assert tuple(tuple(known[i] for i in frames) for frames in seen) == whole[start : start + chunk]
        past = tuple(known[i] for i in look_back.chosen(known))


def test_a_frame_looks_at_frames_of_its_own_clip_only() -> None:
    window = FrameLayout(1, (2, 3, 0, 1), (0, 0, 1, 1))
    assert seen_frames(LookBack(), window) == ((0,), (1, 0), (2,), (3, 2))


def test_places_count_not_rows_where_a_window_runs_over_the_end() -> None:
    looped = FrameLayout(1, (6, 7, 0, 1), (0, 0, 0, 0))
    assert seen_frames(LookBack(), looped) == ((0, 2, 3), (1, 2, 0), (2,), (3, 2))


def test_how_many_frames_are_looked_at_is_known_beforehand() -> None:
    assert [LookBack().most(n) for n in range(4)] == [0, 1, 2, 2]
    assert [LookBack("first").most(n) for n in range(3)] == [0, 1, 1]
    assert [LookBack("last", 2).most(n) for n in range(4)] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("settings", "told"), [(("nearest", 2), "look_back must be one of"), (("last", 0), "last_frames must be 1 or more")]
)
def test_unusable_settings_are_refused(settings: tuple, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LookBack(*settings)
