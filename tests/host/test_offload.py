"""What waits in main memory beside a card's work comes back right, and in time; tried on a card that is not there."""

from contextlib import nullcontext
from unittest import mock

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler
from ways import with_cross_frame_attention

from fake_card import call, fake_card
from late_copies import late_copies
from magicvideo.adaptor_unet import frame_layout
from magicvideo.adaptor_unet.frame_layout import MAIN_MEMORY, KeptFrames
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.causal_windows import Chunk
from magicvideo.adaptor_unet.host.frame_cache import FRAMES_KEY, MADE_ONCE_KEY, FrameCache, MadeOnce
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.offload import Offloaded, Streams, streams_of

pytestmark = pytest.mark.on_newest


@pytest.mark.parametrize("order", ["together", "frame by frame"])
def test_copies_that_come_as_late_as_may_be_change_no_number(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, order: str
) -> None:
    bound = with_cross_frame_attention(bind(model, adaptor, order=order))
    expected = sample(with_causal_windows(bound, 2, offload=True), 5)
    with late_copies() as copies:
        found = sample(with_causal_windows(bound, 2, offload=True), 5)
    assert torch.equal(found, expected) and copies.copies > 0
    assert copies.used <= copies.noted, "memory in use by a copy may be given to others"
    assert 0 < copies.late < copies.back / 5, "all but the first of a call are on their way before they are needed"


def test_what_is_fetched_and_not_taken_waits_on() -> None:
    with late_copies() as copies:
        one = Offloaded(torch.arange(6.0), copies.streams)
        one.fetch()
        one.fetch()
        assert copies.copies == 2, "it is on its way already"
        assert one.take().tolist() == one.take().tolist() == [0, 1, 2, 3, 4, 5]


def test_what_is_put_away_anew_takes_the_place_of_what_was() -> None:
    kept = KeptFrames(device=MAIN_MEMORY, beside_work=True)
    with late_copies():
        kept.put_away("k", torch.zeros(2))
        kept.fetch()
        latest = kept.put_away("k", torch.ones(2))
        assert list(kept.away.values()) == [latest] and kept.brought(latest, MAIN_MEMORY).tolist() == [1, 1]


@pytest.mark.parametrize("kept", [KeptFrames(), KeptFrames(device=MAIN_MEMORY, beside_work=True)])
def test_where_there_is_no_card_copies_are_plain(kept: KeptFrames) -> None:
    x = torch.ones(2)
    put = kept.put_away("k", x)
    assert streams_of(x.device) is None and isinstance(put, torch.Tensor) and put.data_ptr() != x.data_ptr()
    assert kept.brought(put, x.device) is put and not kept.away


@pytest.mark.parametrize(("streams", "beside"), [(0, False), (2, True)])
def test_the_hosts_switch_for_copies_beside_the_work_counts(
    streams: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.model_management, "NUM_STREAMS", streams)
    assert FrameCache(MAIN_MEMORY).beside_work is beside and not FrameCache().beside_work


def test_on_a_card_nothing_else_is_copied(model: ModelPatcher, adaptor: ModelPatcher) -> None:
    bound, once = with_cross_frame_attention(bind(model, adaptor)), MadeOnce()
    silent = Streams(mock.MagicMock(), mock.MagicMock())
    with (
        mock.patch.object(frame_layout, "streams_of", lambda device: silent),
        mock.patch.object(comfy.model_management, "NUM_STREAMS", 2),
        mock.patch.object(torch.cuda, "current_stream"),
        mock.patch.object(torch.cuda, "stream", lambda stream: nullcontext()),
        mock.patch.object(torch.Tensor, "record_stream"),
        fake_card(model, adaptor),
        torch.inference_mode(),
    ):
        for _ in range(2):  # at the first step things are made once
            cache = FrameCache(MAIN_MEMORY)
            for start in (0, 8):
                cache.begin_chunk()
                chunk = Chunk(range(start, start + 8), 16)
                found = call(bound, 8, **{MADE_ONCE_KEY: once, FRAMES_KEY: cache, "context_window": chunk}).found
    assert found and {line.partition(":")[0] for line in found} == {"offload.py"}
