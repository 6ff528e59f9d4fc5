"""What the ablation puts in place of parts of the adaptor does what its name says."""

import pytest
import torch
from torch import nn

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.sites import Site
from magicvideo.benchmarks.ablation_parts import (
    masked_after,
    temporal_convolutions_at_work,
    two_way,
    with_attention_weights,
    with_temporal_convolutions,
)

SITES = (
    Site("input_blocks.1.0.in_layers.2", "convolution", 8),
    Site("input_blocks.1.1.transformer_blocks.0", "transformer", 8),
)
FRAMES, ATTENTION = 4, SITES[1].name


@pytest.fixture
def adaptor() -> VideoAdaptor:
    torch.manual_seed(0)
    made = VideoAdaptor(AdaptorConfig(SITES, frames=FRAMES, heads=2))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def moved_by_the_last_frame(adaptor: VideoAdaptor) -> torch.Tensor:
    """How far each frame's output moves when only the last frame changes, f."""
    z = torch.randn(FRAMES, 3, 8)
    other = z.clone()
    other[-1] += 1
    layout = FrameLayout.whole(1, FRAMES)
    return (adaptor.temporal[ATTENTION](other, layout) - adaptor.temporal[ATTENTION](z, layout)).abs().amax(dim=(1, 2))


def test_only_the_masked_scores_keep_earlier_frames_from_later_ones(adaptor: VideoAdaptor) -> None:
    assert moved_by_the_last_frame(adaptor)[:-1].max() == 0
    for weights in (two_way, masked_after):
        assert moved_by_the_last_frame(with_attention_weights(adaptor, weights)).min() > 1e-3


def test_weights_by_hand() -> None:
    scores = torch.zeros(2, 2)
    assert two_way(scores).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert masked_after(scores).tolist() == [[0.5, 0.0], [0.5, 0.5]]


def test_a_convolution_over_time_adds_nothing_at_first_and_then_mixes_neighbouring_frames(
    adaptor: VideoAdaptor,
) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1)
    unet = nn.ModuleDict({"input_blocks": nn.ModuleList([nn.Identity(), nn.ModuleList([nn.Module()])])})
    unet.input_blocks[1][0].in_layers = nn.ModuleList([nn.Identity(), nn.Identity(), layer])
    z = torch.randn(2 * FRAMES, 8, 5, 3)
    plain = layer(z)
    changed = with_temporal_convolutions(adaptor)
    assert any(name.startswith("over_time.") for name, _ in changed.named_parameters())
    with temporal_convolutions_at_work(unet, changed, FRAMES):
        assert torch.equal(layer(z), plain)
        nn.init.normal_(changed.over_time[SITES[0].name].weight)
        other = z.clone()
        other[1] += 1
        moved = (layer(other) - layer(z)).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert moved.tolist() == [True, True, True, False, False, False, False, False]
    assert torch.equal(layer(z), plain)
