"""Stills and clips become longer clips."""

from typing import Any

import pytest
import torch
from torch import Tensor

from magicvideo.adaptor_unet.expand_latent import expand_latent, lengthen, longer_batch_index, shown


def frames_of(*numbers: int) -> Tensor:
    """One small latent a number, filled with it."""
    return torch.stack([torch.full((4, 2, 3), float(n)) for n in numbers])


def told(x: Tensor) -> list[int]:
    """The number each frame is filled with."""
    return [int(frame.flatten()[0]) for frame in x]


def test_each_still_becomes_a_clip_of_its_own() -> None:
    out = expand_latent({"samples": frames_of(1, 2)}, 3)
    assert told(out["samples"]) == [1, 1, 1, 2, 2, 2]
    assert torch.equal(out["samples"], frames_of(1, 1, 1, 2, 2, 2))


def test_the_last_frame_of_each_clip_is_repeated() -> None:
    out = expand_latent({"samples": frames_of(1, 2, 3, 4)}, 4, frames_per_clip=2)
    assert told(out["samples"]) == [1, 2, 2, 2, 3, 4, 4, 4]


def test_clips_of_the_wanted_length_stay_as_they_are() -> None:
    samples = torch.randn(6, 4, 2, 2)
    assert torch.equal(expand_latent({"samples": samples}, 3, frames_per_clip=3)["samples"], samples)


def test_lengthening_works_for_any_further_axes() -> None:
    assert lengthen(torch.arange(4), 2, shown(2, 3)).tolist() == [0, 1, 1, 2, 3, 3]


def test_back_and_forth_a_clip_ends_beside_its_beginning() -> None:
    out = expand_latent({"samples": frames_of(1, 2, 3, 4)}, 6, frames_per_clip=4, ping_pong=True)
    assert told(out["samples"]) == [1, 2, 3, 4, 3, 2]
    longer = expand_latent({"samples": frames_of(1, 2, 3, 7, 8, 9)}, 7, frames_per_clip=3, ping_pong=True)
    assert told(longer["samples"]) == [1, 2, 3, 2, 1, 2, 3, 7, 8, 9, 8, 7, 8, 9], "each clip its own frames"


@pytest.mark.parametrize(("given", "frames"), [(1, 4), (2, 5), (9, 16), (9, 40)])
def test_back_and_forth_neighbours_are_neighbours_and_a_still_stays_one(given: int, frames: int) -> None:
    places = shown(given, frames, ping_pong=True)
    steps = {abs(b - a) for a, b in zip(places, places[1:], strict=False)}
    assert places[:given] == list(range(given)) and steps == ({0} if given == 1 else {1})
    assert set(places) == set(range(given))


def test_masks_go_back_and_forth_with_the_frames() -> None:
    mask = frames_of(5, 6, 7)[:, :1]
    out = expand_latent({"samples": frames_of(1, 2, 3), "noise_mask": mask}, 4, frames_per_clip=3, ping_pong=True)
    assert told(out["noise_mask"]) == [5, 6, 7, 6]


@pytest.mark.parametrize("axes", ["n h w", "n c h w"])
def test_a_mask_for_each_frame_grows_with_the_clips(axes: str) -> None:
    mask = frames_of(5, 6)[:, 0] if axes == "n h w" else frames_of(5, 6)[:, :1]
    out = expand_latent({"samples": frames_of(1, 2), "noise_mask": mask}, 3)
    assert told(out["noise_mask"]) == [5, 5, 5, 6, 6, 6]
    assert out["noise_mask"].shape[1:] == mask.shape[1:]


@pytest.mark.parametrize("stills", [1, 2])
@pytest.mark.parametrize("axes", ["n h w", "n c h w"])
def test_one_mask_for_all_stays_one_mask(axes: str, stills: int) -> None:
    mask = frames_of(5)[:, 0] if axes == "n h w" else frames_of(5)[:, :1]
    out = expand_latent({"samples": frames_of(*range(stills)), "noise_mask": mask}, 3)
    assert torch.equal(out["noise_mask"], mask)


def test_a_few_masks_for_many_stills_are_shared_out_as_the_host_does() -> None:
    out = expand_latent({"samples": frames_of(1, 2, 3, 4), "noise_mask": frames_of(5, 6)[:, 0]}, 3)
    assert told(out["noise_mask"]) == [5] * 3 + [6] * 3 + [5] * 3 + [6] * 3
    one_a_frame = frames_of(5, 6, 7)[:, 0]
    assert told(expand_latent({"samples": frames_of(1), "noise_mask": one_a_frame}, 3)["noise_mask"]) == [5, 6, 7]


def test_kept_frames_get_a_mask_of_0_and_new_ones_of_1_clip_by_clip() -> None:
    out = expand_latent({"samples": frames_of(1, 2, 3, 4)}, 5, frames_per_clip=2, keep_given=True)
    assert out["noise_mask"].shape == (10, 1, 2, 3)
    assert told(out["noise_mask"]) == [0, 0, 1, 1, 1] * 2
    assert set(out["noise_mask"].unique().tolist()) == {0.0, 1.0}
    assert told(out["samples"]) == [1, 2, 2, 2, 2, 3, 4, 4, 4, 4]


@pytest.mark.parametrize("rows", [1, 2])
def test_the_keeping_mask_takes_the_place_of_any_other(rows: int) -> None:
    """A latent that was extended before still has that mask."""
    latent = {"samples": frames_of(1, 2), "noise_mask": torch.zeros(rows, 1, 2, 3)}
    out = expand_latent(latent, 3, frames_per_clip=2, keep_given=True)
    assert told(out["noise_mask"]) == [0, 0, 1]
    assert latent["noise_mask"].shape[0] == rows, "the latent that came in stays as it was"


def test_no_mask_stays_no_mask() -> None:
    assert set(expand_latent({"samples": frames_of(1)}, 3)) == {"samples"}
    assert expand_latent({"samples": frames_of(1), "noise_mask": None}, 3)["noise_mask"] is None


def test_given_frames_keep_their_noise_and_new_ones_get_the_next_free() -> None:
    out = expand_latent({"samples": frames_of(1, 2), "batch_index": [0, 1]}, 3)
    assert out["batch_index"] == [0, 2, 3, 1, 4, 5]


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [7, 3, 4, 0], [100, 0, 50, 2]])
@pytest.mark.parametrize("given", [1, 2, 4])
@pytest.mark.parametrize("frames", [4, 5, 17])
def test_every_frame_has_noise_of_its_own(places: list[int], given: int, frames: int) -> None:
    longer = longer_batch_index(list(places), given, frames)
    assert len(longer) == len(set(longer)) == len(places) // given * frames
    kept = [longer[clip * frames + i] for clip in range(len(places) // given) for i in range(given)]
    assert kept == places


def test_the_given_latent_is_left_alone() -> None:
    latent: dict[str, Any] = {
        "samples": frames_of(1, 2),
        "noise_mask": frames_of(5, 6)[:, 0],
        "batch_index": [0, 1],
        "other": "kept",
    }
    before = {name: value.clone() if isinstance(value, Tensor) else value[:] for name, value in latent.items()}
    out = expand_latent(latent, 3)
    assert out["other"] == "kept"
    assert torch.equal(latent["samples"], before["samples"])
    assert torch.equal(latent["noise_mask"], before["noise_mask"])
    assert latent["batch_index"] == before["batch_index"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    assert expand_latent({"samples": frames_of(1).to(dtype)}, 2)["samples"].dtype == dtype


def test_a_latent_that_holds_no_whole_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="frames_per_clip is 2, but the latent holds 3 frames"):
        expand_latent({"samples": frames_of(1, 2, 3)}, 4, frames_per_clip=2)


def test_clips_never_get_shorter() -> None:
    with pytest.raises(ValueError, match="have 4 frames already, more than the 3 asked for"):
        expand_latent({"samples": frames_of(1, 2, 3, 4)}, 3, frames_per_clip=4)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8, 8), (4, 8, 8)])
def test_latents_of_other_models_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"this one has {len(shape)} dimensions"):
        expand_latent({"samples": torch.zeros(shape)}, 4)
