"""Which frames a frame looks at."""

import pytest

from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.look_back import LookBack, seen_frames

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
