"""S and B computed from what the frames' channels are."""

import pytest
import torch
from torch import Tensor

from magicvideo.adaptor_unet.adain import (
    MOST_SCALE,
    FrameStatistics,
    ReferenceStatistics,
    adain,
    frame_statistics,
    reference_of,
)
from magicvideo.adaptor_unet.frame_layout import FrameLayout


def features(rows: int, seed: int = 0) -> Tensor:
    """n c h w with a mean and a spread of its own in each frame and channel."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 3, 6, 5, generator=generator)
    return z * (0.5 + torch.rand(rows, 3, 1, 1, generator=generator)) + torch.randn(rows, 3, 1, 1, generator=generator)


def aligned(z: Tensor, layout: FrameLayout, strength: float = 1.0, past: list[ReferenceStatistics] = ()) -> Tensor:
    own = frame_statistics(z)
    scale, shift = adain(own, reference_of(own, layout, past), strength)
    return scale[:, :, None, None] * z + shift[:, :, None, None]


def test_statistics_by_hand() -> None:
    mean, deviation = frame_statistics(torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]]))
    torch.testing.assert_close(mean, torch.tensor([[2.0, 5.0]]))
    torch.testing.assert_close(deviation, torch.tensor([[1.0, 0.0]]))


def test_every_frame_gets_the_first_frames_mean_and_spread() -> None:
    z = features(2 * 4)
    after = frame_statistics(aligned(z, FrameLayout.whole(2, 4)))
    first = frame_statistics(z[[0, 4]])
    for run in range(2):
        for row in range(4):
            torch.testing.assert_close(after.mean[4 * run + row], first.mean[run], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(after.deviation[4 * run + row], first.deviation[run], atol=1e-4, rtol=1e-4)


def test_a_first_frame_stays_bit_for_bit_and_half_the_strength_is_half_the_way() -> None:
    z = features(5)
    whole, half = aligned(z, FrameLayout.whole(1, 5)), aligned(z, FrameLayout.whole(1, 5), 0.5)
    assert torch.equal(whole[0], z[0]) and torch.equal(half[0], z[0])
    torch.testing.assert_close(half, (z + whole) / 2)


def test_the_reference_is_the_earliest_frame_of_ones_own_clip() -> None:
    z = features(4)
    out = aligned(z, FrameLayout(1, (1, 0, 3, 2), (0, 0, 1, 1)))
    assert torch.equal(out[[1, 3]], z[[1, 3]])
    torch.testing.assert_close(out[0].mean((1, 2)), z[1].mean((1, 2)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out[2].mean((1, 2)), z[3].mean((1, 2)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_hold_on_to_the_first_frame(chunk: int) -> None:
    z = features(2 * 6)
    whole = aligned(z, FrameLayout.whole(2, 6))
    past = [ReferenceStatistics(), ReferenceStatistics()]
    for start in range(0, 6, chunk):
        own = tuple(range(start, start + chunk))
        rows = [run * 6 + i for run in range(2) for i in own]
        torch.testing.assert_close(aligned(z[rows], FrameLayout(2, own, (0,) * chunk), past=past), whole[rows])


def test_flat_channels_stay_and_no_scale_leaves_its_bounds() -> None:
    own = FrameStatistics(torch.zeros(1, 3), torch.tensor([[0.0, 1e-9, 1.0]]))
    flat = FrameStatistics(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 1e-9]]))
    scale, _ = adain(own, flat)
    torch.testing.assert_close(scale, torch.tensor([[1.0, MOST_SCALE, 1 / MOST_SCALE]]))


def test_half_precision_is_measured_in_fp32() -> None:
    mean, deviation = frame_statistics(torch.full((1, 1, 200, 400), 60.0, dtype=torch.float16))
    assert mean.dtype == torch.float32 and mean.item() == 60 and deviation.item() == 0
