"""What stands in place of a part of the adaptor in the ablation: other attentions, and convolutions over time.

Axes: b clips of a batch, f frames of each, p positions, h heads, d channels of a head, c channels, y height, x width.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from einops import rearrange
from torch import Tensor, nn

from magicvideo.adaptor_unet.adaptor import SiteModules, VideoAdaptor
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.host.call_part import CallPart, Hook
from magicvideo.adaptor_unet.temporal_attention import DirectedTemporalAttention, KvCache

AttentionWeights = Callable[[Tensor], Tensor]


def two_way(scores: Tensor) -> Tensor:
    """Every frame sees all frames, as in AnimateDiff."""
    return scores.softmax(dim=-1)


def masked_after(scores: Tensor) -> Tensor:
    """The mask behind the softmax: later frames stay in the normaliser."""
    return scores.softmax(dim=-1).tril()


class OtherAttention(DirectedTemporalAttention):
    """The same layers with other weights from frame to frame."""

    weights: AttentionWeights

    def _piece(self, z: Tensor, layout: FrameLayout, mask: Tensor | None, past: KvCache | None, start: int) -> Tensor:
        """f p c -> f p c"""
        q, k, v = (
            rearrange(layer(z), "f p (h d) -> p h f d", h=self.heads) for layer in (self.to_q, self.to_k, self.to_v)
        )
        seen = self.weights((q * q.shape[-1] ** -0.5) @ k.mT) @ v
        return self.to_out(rearrange(seen, "p h f d -> f p (h d)"))


def with_attention_weights(adaptor: VideoAdaptor, weights: AttentionWeights) -> VideoAdaptor:
    """The same adaptor, whose attentions weigh frames otherwise."""
    for module in adaptor.modules():
        if isinstance(module, DirectedTemporalAttention):
            module.__class__ = OtherAttention
            module.weights = weights
    return adaptor


class TemporalConvolution(nn.Conv1d):
    """``z + Conv1d(z)`` over the frames of each position (pseudo-3D, Make-A-Video Sec. 3.2).  Adds nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def over_frames(self, z: Tensor, frames: int) -> Tensor:
        """(b f) c y x -> (b f) c y x"""
        rows, y = rearrange(z, "(b f) c y x -> (b y x) c f", f=frames), z.shape[2]
        added = rearrange(self(rows), "(b y x) c f -> (b f) c y x", y=y, x=z.shape[3])
        return z + added


def with_temporal_convolutions(adaptor: VideoAdaptor) -> VideoAdaptor:
    """The same adaptor with one convolution over time for each of the image model's convolutions."""
    adaptor.over_time = SiteModules((site, TemporalConvolution(site.channels)) for site in adaptor.config.convolutions)
    return adaptor


def temporal_convolutions_at_work(unet: nn.Module, adaptor: VideoAdaptor, frames: int) -> AbstractContextManager[None]:
    """In its context, hooks behind the convolutions of a UNet, for batches of clips of so many frames.

    The adaptor's are those of ``with_temporal_convolutions``; another one has none.
    """
    sites = adaptor.config.convolutions if hasattr(adaptor, "over_time") else ()
    return CallPart(hooks={site.name: behind(adaptor.over_time[site.name], frames) for site in sites}).hooked(unet)


def behind(layer: TemporalConvolution, frames: int) -> Hook:
    """A forward hook that puts the layer behind a convolution."""
    return lambda module, inputs, z: layer.over_frames(z, frames)
