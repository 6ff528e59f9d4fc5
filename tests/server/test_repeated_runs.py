"""One server, many runs: what comes later is not coloured by what went before."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from magicvideo.tools.host_server import HostServer, Prompt

Small = Callable[..., Prompt]
LatentOf = Callable[[Prompt], tuple[np.ndarray, object]]
FRAMES = 4


@pytest.fixture(scope="module")
def first(latent_of: LatentOf, small: Small) -> np.ndarray:
    return latent_of(small("text_to_video", batch_size=FRAMES))[0]


@pytest.mark.parametrize("changed", [{}, {"seed": 12345}, {"cfg": 2.5}, {"fps": 24.0}, {"strength": 0.5}])
def test_after_a_change_and_back_the_result_is_the_first_one(
    latent_of: LatentOf, small: Small, first: np.ndarray, changed: dict[str, float]
) -> None:
    other, _ = latent_of(small("text_to_video", batch_size=FRAMES, **changed))
    assert np.array_equal(other, first) == (not changed)
    again, _ = latent_of(small("text_to_video", batch_size=FRAMES))
    assert np.array_equal(again, first)


def test_a_number_of_frames_that_does_not_divide_the_batch_is_named_and_the_next_run_works(
    server: HostServer, latent_of: LatentOf, small: Small, first: np.ndarray
) -> None:
    finished = server.wait(server.queue(small("text_to_video", batch_size=FRAMES, frames_per_clip=3)))
    assert finished.status == "error"
    assert "frames_per_clip" in finished.error and "3" in finished.error and str(FRAMES) in finished.error
    assert np.array_equal(latent_of(small("text_to_video", batch_size=FRAMES))[0], first)


def test_after_an_interrupt_the_next_run_equals_a_fresh_one(
    server: HostServer, latent_of: LatentOf, small: Small, first: np.ndarray
) -> None:
    prompt_id = server.queue(small("text_to_video", batch_size=FRAMES, steps=1000))
    deadline = time.monotonic() + 60
    while not server.progress() and time.monotonic() < deadline:
        time.sleep(0.05)
    server.interrupt()
    assert server.wait(prompt_id, seconds=60).interrupted
    assert np.array_equal(latent_of(small("text_to_video", batch_size=FRAMES))[0], first)
