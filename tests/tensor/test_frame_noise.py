"""Noise shared by the frames of a clip."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from magicvideo.adaptor_unet.frame_noise import check_noise, frame_noise, is_shared, shared_with_first

KINDS = ["mixed", "progressive"]
ALL = torch.randn(40, 4, 50, 50, generator=torch.Generator().manual_seed(0))


def own(places: Sequence[int]) -> Tensor:
    return ALL[list(places)]


def correlation(x: Tensor, y: Tensor) -> float:
    return float((x * y).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_variance_of_every_frame_stays_one(kind: str, share: float) -> None:
    for noise in frame_noise(own, range(12), share, kind):
        assert noise.std().item() == pytest.approx(1, abs=0.03) and abs(noise.mean().item()) < 0.05


def test_mixed_noise_shares_the_first_frames_and_progressive_the_frame_befores() -> None:
    mixed, chain = (frame_noise(own, range(5), 0.64, kind) for kind in KINDS)
    assert correlation(mixed[0], mixed[3]) == pytest.approx(0.8, abs=0.03)
    assert correlation(mixed[2], mixed[3]) == pytest.approx(0.64, abs=0.03)
    assert correlation(chain[2], chain[3]) == pytest.approx(0.8, abs=0.03)
    assert correlation(chain[1], chain[3]) == pytest.approx(0.64, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_shared_is_each_frames_own_noise_and_all_shared_the_first_frames(kind: str) -> None:
    assert torch.equal(frame_noise(own, range(6), 0.0, kind), ALL[:6])
    assert torch.equal(frame_noise(own, range(6), 1.0, kind), ALL[:1].expand(6, -1, -1, -1))


def test_noise_that_is_there_already_is_shared_alike_and_stays_itself_where_nothing_is() -> None:
    noise = ALL[:8].clone()
    for length in (0, 4):
        expected = frame_noise(own, range(8), 0.36, "mixed", length)
        assert torch.equal(shared_with_first(noise, 0.36, length), expected)
    assert torch.equal(noise, ALL[:8]), "the sampler's own noise is left as it was"
    assert shared_with_first(noise, 0.0) is noise


@pytest.mark.parametrize("kind", KINDS)
def test_a_frames_noise_depends_on_its_place_alone(kind: str) -> None:
    whole = frame_noise(own, range(32), 0.5, kind, 16)
    assert torch.equal(frame_noise(own, range(16), 0.5, kind, 16), whole[:16])
    assert torch.equal(frame_noise(own, [20, 3, 3, 31], 0.5, kind, 16), whole[[20, 3, 3, 31]])
    assert torch.equal(frame_noise(own, range(16), 0.5, kind), whole[:16]), "one clip, however long it gets"


@pytest.mark.parametrize("kind", KINDS)
def test_clips_share_nothing_and_begin_with_their_own(kind: str) -> None:
    noise = frame_noise(own, range(8), 0.9, kind, 4)
    assert torch.equal(noise[[0, 4]], ALL[[0, 4]])
    assert abs(correlation(noise[3], noise[4])) < 0.05 and abs(correlation(noise[3], noise[7])) < 0.05


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((1.5, "mixed", 0), "share of Frame Noise must lie in 0 to 1, found 1.5"),
        ((float("nan"), "mixed", 0), "share of Frame Noise"),
        ((0.5, "blue", 0), "kind of Frame Noise must be mixed or progressive"),
        ((0.5, "mixed", -1), "frames_per_clip of Frame Noise must be 0 or more"),
    ],
)
def test_unusable_settings_are_refused(settings: tuple, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_noise(*settings)


def test_it_is_told_from_frames_whether_their_noise_is_shared() -> None:
    """Also where a picture lies below it, and where they are few and small."""
    picture = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for noise in (ALL[:8, :, :8, :8], ALL[:2, :, :8, :8]):
        for share in (0.3, 0.9):
            for latents in (5 * noise, 3 * noise + picture):
                assert not is_shared(latents, share)
            for latents in (5 * shared_with_first(noise, share), 3 * shared_with_first(noise, share) + picture):
                assert is_shared(latents, share)
    assert is_shared(ALL[:1], 0.5), "one frame shares with nobody"
    clips = shared_with_first(ALL[:8], 0.6, 4)
    assert is_shared(clips, 0.6, 4) and not is_shared(ALL[:8], 0.6, 4)


RELATED = {
    "one noise for all": (ALL[:1].expand(6, -1, -1, -1), 1.0),
    "two latents in one batch": (ALL[[0, 0, 1, 2, 0, 3]], 0.5**0.5),
    "mixed by less": (frame_noise(own, range(6), 0.2, "mixed"), 0.5**0.5),
    "mixed by more": (frame_noise(own, range(6), 0.8, "mixed"), 0.8**0.5),
    "in a chain": (frame_noise(own, range(6), 0.8, "progressive"), 0.5**0.5),
}


@pytest.mark.parametrize("before", RELATED)
def test_noise_that_frames_share_already_keeps_its_variance(before: str) -> None:
    noise, least = RELATED[before]
    out = shared_with_first(noise, 0.5)
    assert torch.equal(out[0], noise[0])
    for frame in out[1:]:
        assert frame.std().item() == pytest.approx(1, abs=0.03)
        assert correlation(frame, out[0]) >= least - 0.03
