"""Settings of the data check themselves."""

import dataclasses

import pytest

from magicvideo.adaptor_unet.training.data.data_settings import DataSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", 0),
        ("frames", 16.0),
        ("frames", True),
        ("width", 0),
        ("width", 500),
        ("height", 508),
        ("bucket_step", 12),
        ("width", 4104),
        ("height", 10**9),
        ("crop", "center"),
        ("flip", 1),
        ("stills", "yes"),
        ("fps_min", -1),
        ("fps_max", float("nan")),
        ("fps_max", float("inf")),
        ("fps_max", "30"),
        ("image_fps", 0),
        ("draws_per_clip", 0),
        ("caption_prefix", None),
        ("seed", 0.5),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is .*expected"):
        DataSettings(**{name: value})


def test_a_range_of_rates_that_is_turned_round_is_refused() -> None:
    with pytest.raises(ValueError, match="fps_min is 12, more than fps_max, which is 8"):
        DataSettings(fps_min=12, fps_max=8)
    assert DataSettings(fps_min=12, fps_max=0).fps_max == 0, "0 leaves the end open"


def test_a_size_below_one_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one bucket step of 64"):
        DataSettings(width=48, height=48, bucket_sizes=True)
    DataSettings(width=48, height=48, bucket_sizes=True, bucket_step=16)


def test_every_setting_but_the_stills_and_the_prefix_counts_for_the_latents() -> None:
    other = {
        "frames": 8,
        "width": 256,
        "height": 256,
        "bucket_sizes": True,
        "bucket_step": 32,
        "crop": "random",
        "flip": True,
        "fps_min": 5.0,
        "fps_max": 20.0,
        "image_fps": 12.0,
        "draws_per_clip": 2,
        "within_shots": False,
        "stills": False,
        "caption_prefix": "wave",
        "seed": 1,
    }
    assert other.keys() == {field.name for field in dataclasses.fields(DataSettings)}
    usual = DataSettings().latents_depend_on()
    same = {name for name, value in other.items() if DataSettings(**{name: value}).latents_depend_on() == usual}
    assert same == {"stills", "caption_prefix"}


def test_the_same_numbers_written_as_whole_or_broken_give_the_same_cache() -> None:
    assert DataSettings(fps_min=4).latents_depend_on() == DataSettings(fps_min=4.0).latents_depend_on()
