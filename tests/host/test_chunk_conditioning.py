"""What belongs to a frame comes with it into its chunk: prompts, masks, pictures to inpaint, noise masks."""

import comfy.conds
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, build_model, conditioning
from torch import Tensor
from ways import far_looking

from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.causal_windows import chunk_conditioning
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

CLOSE = 1e-4
FRAMES = 10


def both(sample: Sampler, model: ModelPatcher, frames_per_clip: int = 0, **options: object) -> tuple[Tensor, Tensor]:
    """The clip whole, and in chunks of 4 and a rest."""
    bound = bind(model, far_looking(model), frames_per_clip=frames_per_clip)
    return sample(bound, FRAMES, **options), sample(with_causal_windows(bound, 4), FRAMES, **options)


def pictures(*shape: int, seed: int = 4) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.take_turns
@pytest.mark.parametrize("prompts", [1, 3, FRAMES, FRAMES + 2])
@pytest.mark.parametrize("frames_per_clip", [0, 5])
def test_a_prompt_a_frame_reaches_its_frame_in_every_chunk(
    model: ModelPatcher, sample: Sampler, prompts: int, frames_per_clip: int
) -> None:
    text = {"positive": conditioning(1, batch=prompts)}
    whole, chunked = both(sample, model, frames_per_clip, **text)
    assert relative(chunked, whole) <= CLOSE
    first_again = conditioning(1, batch=prompts)
    first_again[0][0][1:] = first_again[0][0][:1]
    if prompts > 1:
        assert relative(both(sample, model, frames_per_clip, positive=first_again)[0], whole) > 10 * CLOSE


@pytest.mark.parametrize("masks", [1, FRAMES])
def test_a_mask_of_a_conditioning_covers_its_frames(model: ModelPatcher, sample: Sampler, masks: int) -> None:
    mask = torch.zeros(masks, 64, 64)
    for frame in range(masks):
        mask[frame, :, : 8 * (frame % 7 + 1)] = 1
    whole, chunked = both(sample, model, positive=conditioning(1, mask=mask) + conditioning(3, strength=0.1))
    assert relative(chunked, whole) <= CLOSE


@pytest.mark.parametrize("masks", [1, FRAMES])
def test_a_noise_mask_acts_on_its_frames(model: ModelPatcher, sample: Sampler, masks: int) -> None:
    mask = torch.zeros(masks, 1, 8, 8)
    for frame in range(masks):
        mask[frame, :, :, : frame % 8] = 1
    whole, chunked = both(sample, model, latent=pictures(FRAMES, 4, 8, 8), noise_mask=mask)
    assert relative(chunked, whole) <= CLOSE


def test_a_model_for_inpainting_gets_the_picture_and_mask_of_each_frame(sample: Sampler) -> None:
    model, latent = build_model(in_channels=9), pictures(FRAMES, 4, 8, 8)
    masks = (pictures(FRAMES, 1, 8, 8, seed=5) > 0).float()
    extra = {"concat_latent_image": latent, "concat_mask": masks}
    text = {"positive": conditioning(1, **extra), "negative": conditioning(2, **extra)}
    whole, chunked = both(sample, model, latent=latent, noise_mask=masks, **text)
    assert relative(chunked, whole) <= CLOSE
    extra = {"concat_latent_image": latent.flip(0), "concat_mask": masks.flip(0)}
    text = {"positive": conditioning(1, **extra), "negative": conditioning(2, **extra)}
    assert relative(both(sample, model, latent=latent, noise_mask=masks, **text)[0], whole) > 10 * CLOSE


def test_entries_are_cut_by_hand_and_left_as_they_were() -> None:
    rows = torch.arange(6)
    entry = {
        "pooled_output": torch.arange(3),
        "per_frame": rows,
        "scale": torch.tensor(2.0),
        "mask": torch.arange(2),
        "strength": 1.0,
        "model_conds": {
            "one": comfy.conds.CONDRegular(torch.tensor([7])),
            "few": comfy.conds.CONDCrossAttn(torch.arange(4)),
            "many": comfy.conds.CONDNoiseShape(torch.arange(9)),
            "frames": comfy.conds.CONDConstant(6),
            "list": comfy.conds.CONDList([rows, torch.tensor([7])]),
        },
    }
    cut = chunk_conditioning(entry, [3, 4, 5], frames=6)
    assert cut["per_frame"].tolist() == [3, 4, 5] and cut["mask"].tolist() == [1, 0, 1]
    assert cut["pooled_output"].tolist() == [0, 1, 2] and cut["scale"] == 2.0 and cut["strength"] == 1.0
    conds = {name: value.cond for name, value in cut["model_conds"].items()}
    assert conds["one"].tolist() == [7] and conds["few"].tolist() == [3, 0, 1] and conds["many"].tolist() == [3, 4, 5]
    assert conds["frames"] == 6 and [x.tolist() for x in conds["list"]] == [[3, 4, 5], [7]]
    assert {type(value) for value in cut["model_conds"].values()} == {type(x) for x in entry["model_conds"].values()}
    assert entry["per_frame"] is rows and entry["model_conds"]["list"].cond[0] is rows
