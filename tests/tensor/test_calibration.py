"""S and B in closed form, from what AdaIN takes at several noise levels."""

import pytest
import torch
from torch import nn

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.calibration import calibrate, check_calibrated, shrunk_mean
from magicvideo.adaptor_unet.sites import Site

SITES = (
    Site("input_blocks.0.0", "convolution", 3),
    Site("input_blocks.1.1.transformer_blocks.0", "transformer", 3),
)


def test_shrinking_by_hand() -> None:
    changes = torch.tensor([1.0, 3.0])[:, None, None]
    mean, uncertainty = 2.0, 2.0 / 2
    assert torch.equal(shrunk_mean(torch.full((3, 1, 1), 2.0)), torch.full((1, 1), 2.0)), (
        "alike at all levels: as it is"
    )
    assert shrunk_mean(changes).item() == pytest.approx(mean * mean**2 / (mean**2 + uncertainty))
    assert shrunk_mean(torch.tensor([-1.0, 1.0])[:, None, None]).item() == 0, "a change of no sign is none"
    assert shrunk_mean(torch.zeros(3, 1, 1)).item() == 0


def made(frames: int, parts: tuple[str, ...]) -> VideoAdaptor:
    return VideoAdaptor(AdaptorConfig(SITES, frames=frames, heads=1, parts=parts))


def test_an_adaptor_gets_s_and_b_and_keeps_the_rest() -> None:
    adaptor = made(4, ("frame", "spatial", "temporal"))
    with torch.no_grad():
        for parameter in adaptor.temporal.parameters():
            nn.init.normal_(parameter)
    before = {name: value.clone() for name, value in adaptor.temporal.state_dict().items()}
    torch.manual_seed(0)
    levels = {site.name: [(torch.randn(6, 3), torch.randn(6, 3)) for _ in range(2)] for site in SITES}
    calibrate(adaptor, levels)
    for part, site in (("frame", SITES[0]), ("spatial", SITES[1])):
        gains, shifts = zip(*levels[site.name], strict=True)
        pair = getattr(adaptor, part)[site.name]
        torch.testing.assert_close(pair.scale, 1 + shrunk_mean(torch.stack(gains))[:4])
        torch.testing.assert_close(pair.shift, shrunk_mean(torch.stack(shifts))[:4])
    assert all(torch.equal(before[name], value) for name, value in adaptor.temporal.state_dict().items())


def test_a_clip_shorter_than_the_adaptor_is_refused() -> None:
    with pytest.raises(ValueError, match="adaptor has 4 frames, but the reference clip only 3"):
        check_calibrated(made(4, ("frame", "spatial")).config, 3)


def test_an_adaptor_without_s_and_b_is_refused() -> None:
    with pytest.raises(ValueError, match="has no S and B to be calibrated. Leave it out"):
        check_calibrated(made(4, ("temporal",)).config, 4)
