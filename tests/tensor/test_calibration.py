"""S and B in closed form, from statistics at several noise levels."""

import pytest
import torch
from torch import Tensor, nn

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.calibration import calibrate, calibrated_change, shrunk_mean
from magicvideo.adaptor_unet.frame_alignment import FrameStatistics
from magicvideo.adaptor_unet.sites import Site

SITES = (
    Site("input_blocks.0.0", "convolution", 3),
    Site("input_blocks.1.1.transformer_blocks.0", "transformer", 3),
)


def levels_of(mean: Tensor, deviation: Tensor, levels: int = 4) -> list[FrameStatistics]:
    return [FrameStatistics(mean, deviation)] * levels


def test_a_change_alike_at_all_levels_is_the_formula_itself() -> None:
    mean, deviation = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [1.0]])
    gain, shift = calibrated_change(levels_of(mean, deviation))
    torch.testing.assert_close(gain, torch.tensor([[0.0], [1.0]]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shift, torch.tensor([[0.0], [1.0 - 2 * 3.0]]), atol=1e-4, rtol=1e-4)


def test_shrinking_by_hand() -> None:
    changes = torch.tensor([1.0, 3.0])[:, None, None]
    mean, uncertainty = 2.0, 2.0 / 2
    assert shrunk_mean(changes).item() == pytest.approx(mean * mean**2 / (mean**2 + uncertainty))
    assert shrunk_mean(torch.tensor([-1.0, 1.0])[:, None, None]).item() == 0, "a change of no sign is none"
    assert shrunk_mean(torch.zeros(3, 1, 1)).item() == 0


def test_the_first_frame_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    levels = [FrameStatistics(torch.randn(5, 3), torch.rand(5, 3) + 0.1) for _ in range(3)]
    gain, shift = calibrated_change(levels)
    assert not gain[0].any() and not shift[0].any() and gain[1:].all() and shift[1:].all()


def made(frames: int, parts: tuple[str, ...]) -> VideoAdaptor:
    return VideoAdaptor(AdaptorConfig(SITES, frames=frames, heads=1, parts=parts))


def test_an_adaptor_gets_s_and_b_and_keeps_the_rest() -> None:
    adaptor = made(4, ("frame", "spatial", "temporal"))
    with torch.no_grad():
        for parameter in adaptor.temporal.parameters():
            nn.init.normal_(parameter)
    before = {name: value.clone() for name, value in adaptor.temporal.state_dict().items()}
    torch.manual_seed(0)
    seen = {site.name: [FrameStatistics(torch.randn(6, 3), torch.rand(6, 3) + 0.1)] * 2 for site in SITES}
    calibrate(adaptor, seen)
    for part, site in (("frame", SITES[0]), ("spatial", SITES[1])):
        gain, shift = calibrated_change(seen[site.name])
        pair = getattr(adaptor, part)[site.name]
        torch.testing.assert_close(pair.scale, 1 + gain[:4])
        torch.testing.assert_close(pair.shift, shift[:4])
    assert all(torch.equal(before[name], value) for name, value in adaptor.temporal.state_dict().items())


def test_a_clip_shorter_than_the_adaptor_is_refused() -> None:
    seen = {site.name: levels_of(torch.zeros(3, 3), torch.ones(3, 3)) for site in SITES}
    with pytest.raises(ValueError, match="adaptor has 4 frames, but the reference clip only 3"):
        calibrate(made(4, ("frame", "spatial")), seen)
