"""The shipped demo model moves things as asked, on the host's own sampler.

A few short clips; docs/demo.md has the whole direction test.  The narrow network computes what the checkpoint
does (test_narrow_network.py) in a quarter of the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from safetensors.torch import load_file

from magicvideo.demo.measure.judge_motion import Asked, Judged, Lengths, model_maker, sampled
from magicvideo.demo.measure.motion_rule import JUMP, SMOOTH
from magicvideo.demo.measure.stock_sampling import StockModel
from magicvideo.demo.model.demo_models import MOTION
from magicvideo.demo.model.make_checkpoint import BASE, write_demo_checkpoint
from magicvideo.demo.model.narrow_unet import narrow_model

FRAMES = 8
Sample = Callable[[Sequence[Asked]], list[Judged]]
ASKED = tuple(
    Asked(subject, background, direction, 12.0, 81_000 + number)
    for number, (subject, background, direction) in enumerate(
        (("rocket", "purple", "left"), ("car", "green", "right"), ("apple", "blue", "up"), ("star", "black", "down"))
    )
)
FAST = 32.0  # frames a second: a thing goes less far from frame to frame
LEAST_RIGHT = 3
LEAST_TRAVEL = 7.0  # pixels along the asked way, mean over the clips
MOST_CHANGE = 0.35  # of the thing's colours from frame 0, mean over a clip

# What differs between versions of ComfyUI is in the tests of the network itself; this is about the weights.
pytestmark = pytest.mark.on_oldest


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("demo") / "demo.safetensors"
    write_demo_checkpoint(path)
    stock, models = StockModel(path), model_maker(narrow_model(load_file(BASE)), MOTION, 0)
    return lambda asked: list(sampled(list(asked), stock, models, Lengths(FRAMES), beside=len(asked)))


@pytest.fixture(scope="module")
def clips(sample: Sample) -> list[Judged]:
    return sample(ASKED)


def test_things_go_the_way_the_prompt_says(clips: list[Judged]) -> None:
    ways = [clip.way for clip in clips]
    assert sum(clip.right for clip in clips) >= LEAST_RIGHT, ways
    assert fmean(clip.along for clip in clips) > LEAST_TRAVEL, ways


def test_nothing_jumps_from_frame_to_frame(clips: list[Judged]) -> None:
    off = [clip.worst_step for clip in clips]
    assert max(off) <= JUMP and sum(step <= SMOOTH for step in off) >= LEAST_RIGHT, off


def test_at_a_higher_frame_rate_things_go_less_far_from_frame_to_frame(clips: list[Judged], sample: Sample) -> None:
    fast = sample([replace(clip.asked, fps=FAST) for clip in clips[:2]])
    assert sum(clip.along for clip in fast) < 0.6 * sum(clip.along for clip in clips[:2])


def test_a_thing_stays_itself(clips: list[Judged]) -> None:
    assert max(clip.changed for clip in clips) < MOST_CHANGE
