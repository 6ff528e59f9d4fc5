"""Which row of a batch is which frame, and which frames it may see."""

import pytest
import torch

from magicvideo.adaptor_unet.frame_layout import FrameLayout

SPAN = 16


def seen_from(layout: FrameLayout, span: int = SPAN, past: tuple[int, ...] = ()) -> dict[int, list[int]]:
    """The positions that each frame sees, by the frame's own position; for windows of one clip."""
    mask, keys = layout.directed_mask(span, past), past + layout.positions
    return {
        place: [key for key, seen in zip(keys, row, strict=True) if seen]
        for place, row in zip(layout.positions, mask, strict=True)
    }


def test_a_whole_clip_counts_its_frames_from_zero() -> None:
    layout = FrameLayout.whole(2, 3)
    assert (layout.batch, layout.frames, layout.positions, layout.clip_of) == (2, 3, (0, 1, 2), (0, 0, 0))


def test_each_run_gets_the_rows_of_its_frames() -> None:
    assert FrameLayout.whole(2, 3).adaptor_rows(16) == (0, 1, 2, 0, 1, 2)


def test_frames_past_the_trained_length_use_the_last_row() -> None:
    assert FrameLayout.whole(1, 6).adaptor_rows(4) == (0, 1, 2, 3, 3, 3)


def test_rows_follow_the_positions_of_a_window() -> None:
    assert FrameLayout(2, (22, 23, 0, 1), (0,) * 4).adaptor_rows(16) == (15, 15, 0, 1) * 2


@pytest.mark.parametrize("frames", [1, 2, SPAN])
def test_plain_order_needs_no_mask_up_to_the_span(frames: int) -> None:
    assert FrameLayout.whole(3, frames).directed_mask(SPAN) is None


def test_a_window_without_gaps_needs_no_mask_wherever_it_begins() -> None:
    assert FrameLayout(1, tuple(range(8, 24)), (0,) * 16).directed_mask(SPAN) is None


@pytest.mark.parametrize(
    ("layout", "past"),
    [
        (FrameLayout.whole(1, SPAN + 1), ()),
        (FrameLayout(1, (3, 4, 5), (0,) * 3), (2,)),
        (FrameLayout(1, (0, 2, 4), (0,) * 3), ()),
        (FrameLayout(1, (0, 5, 6), (0,) * 3), ()),
        (FrameLayout(1, (22, 23, 0, 1), (0,) * 4), ()),
        (FrameLayout(1, (0, 1, 0, 1), (0, 0, 1, 1)), ()),
        (FrameLayout(1, (0, 1, 2), (0, 0, 1)), ()),
    ],
)
def test_anything_but_plain_order_gets_a_mask(layout: FrameLayout, past: tuple[int, ...]) -> None:
    assert layout.directed_mask(SPAN, past) is not None


def test_a_frame_sees_itself_and_those_before_it_up_to_the_span() -> None:
    assert seen_from(FrameLayout.whole(1, 5), span=3) == {
        0: [0],
        1: [0, 1],
        2: [0, 1, 2],
        3: [1, 2, 3],
        4: [2, 3, 4],
    }


def test_span_one_sees_only_itself() -> None:
    assert torch.equal(FrameLayout.whole(1, 4).directed_mask(1), torch.eye(4).bool())


def test_a_past_is_seen_like_frames_of_the_batch() -> None:
    whole = FrameLayout.whole(1, 8).directed_mask(4)
    layout = FrameLayout(1, (5, 6, 7), (0,) * 3)
    assert torch.equal(layout.directed_mask(4, past=(2, 3, 4)), whole[5:, 2:])


def test_gaps_count_as_time() -> None:
    assert seen_from(FrameLayout(1, (0, 4, 8, 20), (0,) * 4), span=9) == {0: [0], 4: [0, 4], 8: [0, 4, 8], 20: [20]}


def test_an_anchor_in_front_is_one_more_frame_before() -> None:
    seen = seen_from(FrameLayout(1, (0, 10, 11, 12), (0,) * 4), span=12)
    assert seen == {0: [0], 10: [0, 10], 11: [0, 10, 11], 12: [10, 11, 12]}


def test_a_loop_looks_back_in_time_and_not_in_the_batch() -> None:
    assert seen_from(FrameLayout(1, (22, 23, 0, 1), (0,) * 4)) == {22: [22], 23: [22, 23], 0: [0], 1: [0, 1]}


def test_a_window_over_several_clips_keeps_them_apart() -> None:
    mask = FrameLayout(1, (2, 3, 0, 1, 2), (0, 0, 1, 1, 1)).directed_mask(SPAN)
    expected = torch.block_diag(torch.ones(2, 2).tril(), torch.ones(3, 3).tril()).bool()
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("span", [1, 2, 5])
@pytest.mark.parametrize(
    "layout",
    [
        FrameLayout.whole(1, 7),
        FrameLayout(1, (22, 23, 0, 1, 2, 3), (0,) * 6),
        FrameLayout(1, (0, 30, 60, 31, 61, 1), (0, 0, 0, 1, 1, 1)),
    ],
)
def test_every_frame_sees_itself_and_nothing_later(layout: FrameLayout, span: int) -> None:
    mask = layout.directed_mask(span)
    assert mask.diagonal().all()
    place = torch.tensor(layout.positions)
    assert not mask[place[:, None] < place[None, :]].any()


def test_frames_in_the_making_see_the_finished_ones_before_them_and_themselves() -> None:
    mask = FrameLayout.given_finished(2, 3).directed_mask(3)
    finished, making = [[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    expected = [row + [0, 0, 0] for row in finished]
    expected += [row + own for row, own in zip(making, torch.eye(3).tolist(), strict=True)]
    assert torch.equal(mask, torch.tensor(expected).bool())


def test_frames_in_the_making_see_no_further_back_than_the_span() -> None:
    mask = FrameLayout.given_finished(1, 5).directed_mask(3)
    assert mask[5 + 4].nonzero().flatten().tolist() == [2, 3, 5 + 4]
