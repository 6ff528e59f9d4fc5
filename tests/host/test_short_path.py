"""The way of a UNet call through the pack can be read in one go: it passes few files, and T-Attn is few calls deep."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from comfy.model_patcher import ModelPatcher
from pack import ROOT
from small_host import Sampler

from magicvideo.adaptor_unet.host.binding import Binding
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.temporal_attention import DirectedTemporalAttention

OURS = str(ROOT / "adaptor_unet")
START, END = Binding.around_unet.__code__, DirectedTemporalAttention.forward.__code__


def around(frame: FrameType | None) -> Iterator[FrameType]:
    """The pack's own frames from this one outwards, up to the wrapper around the UNet."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            yield frame
        if frame.f_code is START:
            return
        frame = frame.f_back


@contextmanager
def path_of_calls() -> Iterator[tuple[list[set[str]], set[int]]]:
    """Files that each UNet call passes, and how many calls deep T-Attn is, the wrapper around the UNet included."""
    files, depths = [], set()

    def note(frame: FrameType, event: str, value: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(OURS):
            return
        way = list(around(frame))
        if way[-1].f_code is not START:
            return
        if frame.f_code is START:
            files.append(set())
        files[-1].add(frame.f_code.co_filename.removeprefix(OURS))
        if frame.f_code is END:
            depths.add(len(way))

    sys.setprofile(note)
    try:
        yield files, depths
    finally:
        sys.setprofile(None)


@pytest.mark.on_newest
@pytest.mark.parametrize("order", ["together", "frame by frame"])
def test_a_call_passes_at_most_ten_files_and_the_first_one_more_and_t_attn_is_three_calls_deep(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, order: str
) -> None:
    bound = bind(model, adaptor, order=order)
    sample(bound, 4)  # what follows from the model and the adaptor alone is there from now on
    with path_of_calls() as (files, depths):
        sample(bound, 4)
    once = {"/fps_embedding.py"}  # what it gives is kept for the sampling
    assert files[0] - files[-1] == once and depths == {3}
    assert all(8 <= len(in_call - once) <= 10 for in_call in files) and sum(once <= in_call for in_call in files) <= 2
