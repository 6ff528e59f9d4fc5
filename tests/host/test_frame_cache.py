"""The past of a denoising call: whose it is, and when it begins anew."""

from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.host.frame_cache import FRAMES_KEY, FrameCache, cache_of_call
from magicvideo.adaptor_unet.temporal_attention import KvCache


def of_clip(clip: int) -> FrameLayout:
    return FrameLayout(1, (0,), (clip,))


def call(cache: FrameCache, uuids: list[str], sides: list[int], clip: int = 0, site: str = "site") -> list:
    past = cache_of_call({FRAMES_KEY: cache, "uuids": uuids, "cond_or_uncond": sides})
    return [id(frames) for frames in past(0, site, FrameLayout(len(uuids), (0,), (clip,)), KvCache)]


def test_a_conditioning_finds_its_past_wherever_it_stands_in_the_batch() -> None:
    cache = FrameCache()
    cache.begin_chunk()
    first, second, third = call(cache, ["a", "b", "c"], [0, 0, 1])
    cache.begin_chunk()
    assert call(cache, ["c"], [1]) == [third]
    assert call(cache, ["b", "a"], [0, 0]) == [second, first]


def test_one_uuid_on_both_sides_names_two_conditionings_in_any_order() -> None:
    """The host gives the copy of an area on the other side the area's own uuid."""
    cache = FrameCache()
    cache.begin_chunk()
    positive, negative = call(cache, ["a", "a"], [0, 1])
    cache.begin_chunk()
    assert positive != negative and call(cache, ["a", "a"], [1, 0]) == [negative, positive]


def test_sites_and_clips_have_a_past_of_their_own() -> None:
    cache = FrameCache()
    pasts = [cache.of_call(["a"])(0, site, of_clip(clip), KvCache)[0] for site, clip in (("x", 0), ("y", 0), ("x", 1))]
    assert len({id(past) for past in pasts}) == 3
    assert len(cache.entries) == 3, "calls within one chunk are told apart"
    cache.begin_chunk()
    assert cache.of_call(["a"])(0, "x", of_clip(0), KvCache)[0] is pasts[0]
    cache.begin_chunk()
    assert cache.of_call(["a"])(0, "x", of_clip(1), KvCache)[0] is not pasts[0], "the clip before is dropped"
    assert len(cache.entries) == 3


def test_a_call_outside_of_chunks_has_no_past() -> None:
    assert cache_of_call({})(0, "site", of_clip(0), KvCache) == ()


def test_clips_side_by_side_have_an_entry_each_under_every_conditioning() -> None:
    cache = FrameCache()
    layout = FrameLayout(4, (0,), (0,))  # two conditionings of two clips
    first = cache.of_call(["a", "b"])(0, "site", layout, KvCache)
    assert len({id(entry) for entry in first}) == 4
    cache.begin_chunk()
    assert [id(entry) for entry in cache.of_call(["b", "a"])(0, "site", layout, KvCache)] == [
        id(first[place]) for place in (2, 3, 0, 1)
    ]


def test_frames_that_are_kept_are_not_kept_again() -> None:
    cache = FrameCache()
    entry = cache.of_call(["a"])(0, "site", of_clip(0), KvCache)[0]
    assert entry.keeps
    entry.positions = (0, 1)
    for first, keeps in ((1, False), (2, True)):
        cache.begin_chunk()
        assert cache.of_call(["a"])(0, "site", FrameLayout(1, (first,), (0,)), KvCache)[0].keeps == keeps
    cache.begin_chunk()
    cache.keeps = False
    assert not cache.of_call(["a"])(0, "site", FrameLayout(1, (2,), (0,)), KvCache)[0].keeps
