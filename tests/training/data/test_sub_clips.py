"""Sub-clips by arithmetic alone: rates, starts, spacing, and clips that have none."""

from collections import Counter
from random import Random

import pytest

from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.sub_clips import SubClip, UnfitClipError, draw_sub_clip, usual_interval


def steady(count: int, fps: float) -> tuple[list[float], float]:
    return [number / fps for number in range(count)], count / fps


def draws(times: list[float], end: float, settings: DataSettings, count: int = 200) -> list[SubClip]:
    random = Random(0)
    return [draw_sub_clip(times, end, settings, random, draw, count) for draw in range(count)]


def test_frames_are_evenly_spaced_and_their_rate_is_the_condition() -> None:
    times, end = steady(240, 24)
    for sub in draws(times, end, DataSettings()):
        places = [times.index(time) for time in sub.times]
        steps = {later - earlier for earlier, later in zip(places, places[1:], strict=False)}
        assert len(steps) == 1 and len(places) == 16
        assert sub.fps == pytest.approx(24 / steps.pop())


def test_every_rate_that_the_file_has_within_the_range_is_drawn_and_no_other() -> None:
    times, end = steady(240, 24)
    rates = {round(sub.fps, 6) for sub in draws(times, end, DataSettings(fps_min=4, fps_max=13))}
    assert rates == {12, 8, 6, 4.8, 4}


def test_slow_and_fast_octaves_are_drawn_about_equally_often() -> None:
    times, end = steady(500, 32)
    rates = Counter(round(sub.fps, 6) > 8 for sub in draws(times, end, DataSettings(fps_min=2, fps_max=32), 600))
    assert 240 < rates[True] < 360


def test_an_open_range_goes_from_the_files_own_rate_to_the_whole_clip() -> None:
    times, end = steady(151, 30)
    rates = {round(30 / sub.fps) for sub in draws(times, end, DataSettings(fps_min=0, fps_max=0), 500)}
    assert rates == set(range(1, 11))


def test_draws_cover_a_long_clip_from_its_first_frame_to_its_last() -> None:
    times, end = steady(3000, 24)
    subs = draws(times, end, DataSettings(), 20)
    for part, sub in enumerate(subs):
        assert 125 * part / 20 - 4 <= sub.times[0] <= 125 * (part + 1) / 20, "one start from each twentieth"
    times, end = steady(20, 24)
    shown = {time for sub in draws(times, end, DataSettings()) for time in sub.times}
    assert shown == set(times)


def test_a_clip_of_just_enough_frames_gives_all_of_them() -> None:
    times, end = steady(16, 24)
    assert {sub.times for sub in draws(times, end, DataSettings())} == {tuple(times)}


def test_a_clip_of_all_frames_at_half_the_rate_needs_every_second_one() -> None:
    times, end = steady(31, 24)
    settings = DataSettings(fps_min=12, fps_max=12)
    assert {sub.times for sub in draws(times, end, settings)} == {tuple(times[::2])}
    with pytest.raises(UnfitClipError, match="lasts 1.25 seconds; 16 frames at 12 a second need 1.25"):
        draw_sub_clip(*steady(30, 24), settings, Random(0))


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 1000 / 33.4])
def test_rounded_time_stamps_change_neither_the_rate_nor_the_frames(fps: float) -> None:
    exact, end = steady(300, fps)
    rounded = [round(time, 3) for time in exact]
    for one, other in zip(draws(exact, end, DataSettings()), draws(rounded, end, DataSettings()), strict=True):
        assert [exact.index(time) for time in one.times] == [rounded.index(time) for time in other.times]
        assert other.fps == pytest.approx(one.fps, rel=1e-3)


def test_a_shaking_clock_makes_no_frame_come_twice() -> None:
    shake = Random(1)
    times = [number / 30 + shake.uniform(0, 0.01) for number in range(200)]
    for sub in draws(times, 200 / 30, DataSettings(fps_min=29, fps_max=31)):
        assert len(set(sub.times)) == 16


def test_a_frame_that_the_file_holds_is_shown_for_as_long() -> None:
    # Frames 0 to 9 stay for a tenth of a second, frame 10 for a whole one, then tenths again.
    times = [number / 10 for number in range(11)] + [2 + number / 10 for number in range(10)]
    assert usual_interval(times) == pytest.approx(0.1)
    settings = DataSettings(fps_min=10, fps_max=10)
    for sub in draws(times, 3.0, settings):
        assert sub.fps == pytest.approx(10)
        start = sub.times[0] + 0.05
        for step, time in enumerate(sub.times):
            assert time == max(shown for shown in times if shown <= start + step / 10)
    assert any(sub.times.count(1.0) == 10 for sub in draws(times, 3.0, settings))


def test_a_dropped_frame_does_not_change_the_rate() -> None:
    times = [number / 30 for number in range(100) if number % 9]
    assert usual_interval(times) == pytest.approx(1 / 30)


def test_half_of_the_intervals_being_pauses_is_no_error() -> None:
    assert usual_interval([0.0, 1.0, 11.0]) == 1.0


def test_a_clip_with_too_few_frames_is_refused() -> None:
    with pytest.raises(UnfitClipError, match="has 15 frames; a sub-clip needs 16"):
        draw_sub_clip(*steady(15, 24), DataSettings(), Random(0))
    with pytest.raises(UnfitClipError, match="has 1 frame; a sub-clip needs 16"):
        draw_sub_clip([0.0], 0.04, DataSettings(), Random(0))


def test_a_clip_that_is_slower_than_the_range_is_refused() -> None:
    with pytest.raises(UnfitClipError, match="has 2 frames a second, fewer than fps_min, which is 4"):
        draw_sub_clip(*steady(100, 2), DataSettings(), Random(0))


def test_a_clip_whose_rates_step_over_the_range_is_refused() -> None:
    with pytest.raises(UnfitClipError, match="no whole part lies between fps_min 16 and fps_max 20"):
        draw_sub_clip(*steady(100, 30), DataSettings(fps_min=16, fps_max=20), Random(0))


def test_a_single_frame_has_no_rate() -> None:
    times, end = steady(10, 10)
    subs = draws(times, end, DataSettings(frames=1))
    assert {sub.fps for sub in subs} == {0} and {sub.times for sub in subs} == {(time,) for time in times}
