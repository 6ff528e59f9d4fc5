"""Sizes, crops and mirroring of frames."""

from random import Random

import pytest
import torch

from made_clips import corner_names, corners
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.framing import Framing, draw_framing, frame_size, framed


def one(frame: torch.Tensor, size: tuple[int, int], framing: Framing | None = None) -> torch.Tensor:
    return next(framed([frame], size, framing or Framing()))


def byte(picture: torch.Tensor) -> torch.Tensor:
    return (picture * 255).round().to(torch.uint8)


@pytest.mark.parametrize("given", [(64, 48), (48, 64), (33, 100), (7, 5), (640, 360), (128, 96), (127, 97)])
@pytest.mark.parametrize("size", [(64, 64), (128, 96), (8, 72)])
def test_every_frame_gets_the_size_and_stays_between_0_and_1(given: tuple[int, int], size: tuple[int, int]) -> None:
    frame = torch.randint(0, 256, (given[1], given[0], 3), dtype=torch.uint8)
    picture = one(frame, size)
    assert picture.shape == (size[1], size[0], 3) and picture.dtype == torch.float32
    assert 0 <= picture.min() and picture.max() <= 1


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    frame = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8)
    assert torch.equal(byte(one(frame, (64, 48))), frame)


def test_the_shape_of_things_is_kept() -> None:
    frame = torch.zeros(60, 120, 3, dtype=torch.uint8)
    frame[20:40, 50:70] = 255
    picture = one(frame, (30, 30))[..., 0] > 0.5
    assert picture.any(0).sum() == picture.any(1).sum() == 10, "a square stays a square"


def test_shrinking_averages_what_falls_together() -> None:
    noise = torch.randint(0, 256, (128, 128, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert one(noise, (16, 16)).std() < 0.3 * (noise / 255).std()


@pytest.mark.parametrize(
    ("framing", "kept"), [(Framing(), (20, 40)), (Framing(across=0.0), (0, 20)), (Framing(across=1.0), (40, 60))]
)
def test_a_crop_lies_where_the_framing_says(framing: Framing, kept: tuple[int, int]) -> None:
    frame = torch.arange(60, dtype=torch.uint8).repeat(20, 1)[..., None].repeat(1, 1, 3)
    assert byte(one(frame, (20, 20), framing))[0, :, 0].tolist() == list(range(*kept))
    tall = frame.transpose(0, 1)
    turned = Framing(down=framing.across)
    assert byte(one(tall, (20, 20), turned))[:, 0, 0].tolist() == list(range(*kept))


def test_a_flip_swaps_left_and_right() -> None:
    frame = torch.from_numpy(corners())
    assert corner_names(byte(one(frame, (64, 48), Framing(flip=True)))) == "grxb"


def test_all_frames_of_a_sub_clip_are_framed_alike() -> None:
    frame = torch.randint(0, 256, (40, 90, 3), dtype=torch.uint8)
    first, *others = framed([frame] * 4, (32, 32), Framing(0.3, 0.8, True))
    assert all(torch.equal(first, other) for other in others)


def test_the_centre_is_taken_unless_the_crop_is_random_and_nothing_is_flipped_unasked() -> None:
    random = Random(0)
    assert {draw_framing(DataSettings(), random) for _ in range(50)} == {Framing()}
    crops = {draw_framing(DataSettings(crop="random"), random) for _ in range(50)}
    assert len(crops) == 50 and not any(framing.flip for framing in crops)
    flips = [draw_framing(DataSettings(flip=True), random).flip for _ in range(400)]
    assert 160 < sum(flips) < 240


def test_a_flip_setting_does_not_change_the_crops() -> None:
    plain, flipped = Random(3), Random(3)
    for _ in range(20):
        one_, other = (
            draw_framing(DataSettings(crop="random", flip=flip), random)
            for flip, random in ((False, plain), (True, flipped))
        )
        assert (one_.across, one_.down) == (other.across, other.down)


def test_without_buckets_every_clip_gets_the_size_of_the_settings() -> None:
    assert frame_size(1920, 1080, DataSettings(width=512, height=320)) == (512, 320)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ((512, 512), (512, 512)),
        ((1280, 720), (640, 384)),
        ((720, 1280), (384, 640)),
        ((640, 480), (576, 448)),
        ((3000, 500), (640, 384)),
    ],
)
def test_a_bucket_has_nearly_the_clips_shape_and_at_most_the_area(
    given: tuple[int, int], size: tuple[int, int]
) -> None:
    found = frame_size(*given, DataSettings(bucket_sizes=True))
    assert found == size
    assert found[0] % 64 == found[1] % 64 == 0 and found[0] * found[1] <= 512 * 512


def test_small_sizes_have_buckets_in_smaller_steps() -> None:
    settings = DataSettings(width=64, height=64, bucket_sizes=True, bucket_step=16)
    assert frame_size(640, 480, settings) == (80, 48)
    assert frame_size(640, 480, DataSettings(width=64, height=64, bucket_sizes=True)) == (64, 64)
