"""Numbers in settings that nobody means: none makes a run wait or take memory without end, each gets a sentence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from magicvideo.adaptor_unet.training.setting_fields import MOST_SEED, Setting
from magicvideo.adaptor_unet.training.settings import ALL_SETTINGS, RunSettings

WHOLE = [one for one in ALL_SETTINGS.values() if one.kind is int]
RATES = ["fps_min", "fps_max", "image_fps", "teacher_fps"]


@pytest.mark.parametrize("one", WHOLE, ids=lambda one: one.name)
def test_every_whole_number_has_an_end_and_its_sentence_says_it(one: Setting) -> None:
    assert one.most is not None and one.allows(one.most - one.most % one.multiple)
    with pytest.raises(ValueError, match=f"^{one.name} .*from {one.least:g} to {one.most}"):
        RunSettings.from_values({one.name: one.most - one.most % one.multiple + one.multiple})


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([one.name for one in WHOLE]), st.integers(min_value=2**64))
def test_a_number_of_many_digits_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        RunSettings.from_values({name: value})


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(RATES), st.floats(min_value=5e-324, max_value=1e-4) | st.floats(min_value=1001))
def test_a_frame_rate_that_is_none_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        RunSettings.from_values({name: value})


def test_torch_takes_the_last_seed() -> None:
    torch.Generator().manual_seed(MOST_SEED)
