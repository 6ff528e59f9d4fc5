"""The demo's autoencoder: the layout of the small convolutional one that ComfyUI knows, narrower, and padded to it.

ComfyUI builds that layout (TAESD, Ollin Boer Bohan) with 64 channels everywhere. Here each resolution has just the
channels it needs, and ``padded`` fills up with zeros, which changes no output: where weights and biases are zero,
a block's channels stay zero.

Axes: b pictures, c channels, h height, w width; pictures are in 0..1.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from magicvideo.demo.model.sizes import AUTOENCODER, LATENT_CHANNELS, PICTURE_CHANNELS

# Channels at full, half, quarter and eighth resolution.
Widths = tuple[int, int, int, int]
ENCODER_WIDTHS: Widths = (16, 16, 32, 64)
DECODER_WIDTHS: Widths = (32, 32, 64, 64)
DOWNSCALING = 8
WIDE: Widths = (PICTURE_CHANNELS,) * 4  # as ComfyUI has it
# The layout clamps latents softly to this, so they must be of about unit size.
LATENT_LIMIT = 3.0


class SoftClamp(nn.Module):
    """``3 tanh(x / 3)``"""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z / LATENT_LIMIT) * LATENT_LIMIT


class Block(nn.Module):
    """``relu(x + conv(relu(conv(relu(conv(x))))))``, b c h w -> b c h w"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


def _conv(before: int, after: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=bias)


def _encoder(widths: Widths) -> nn.Sequential:
    full, half, quarter, eighth = widths
    layers = [_conv(3, full), Block(full)]
    for before, after in ((full, half), (half, quarter), (quarter, eighth)):
        layers += [_conv(before, after, stride=2, bias=False), *(Block(after) for _ in range(3))]
    return nn.Sequential(*layers, _conv(eighth, LATENT_CHANNELS))


def _decoder(widths: Widths) -> nn.Sequential:
    full, half, quarter, eighth = widths
    layers = [SoftClamp(), _conv(LATENT_CHANNELS, eighth), nn.ReLU()]
    for before, after in ((eighth, quarter), (quarter, half), (half, full)):
        layers += [*(Block(before) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(before, after, bias=False)]
    return nn.Sequential(*layers, Block(full), _conv(full, 3))


class SmallAutoencoder(nn.Module):
    """The demo's autoencoder, of so many channels at each resolution.

    Latents are what the image network works on: of about unit variance, an eighth as high and wide.
    """

    def __init__(self, encoder: Widths = ENCODER_WIDTHS, decoder: Widths = DECODER_WIDTHS) -> None:
        super().__init__()
        self.taesd_encoder = _encoder(encoder)
        self.taesd_decoder = _decoder(decoder)

    def encode(self, pictures: Tensor) -> Tensor:
        """b 3 h w -> b 4 h/8 w/8"""
        return self.taesd_encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        """b 4 h/8 w/8 -> b 3 h w; may overshoot 0..1 a little."""
        return self.taesd_decoder(latents)


def as_bytes(pictures: Tensor) -> Tensor:
    """... in about 0..1 -> ... in 0..255, rounded, as a person sees it"""
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8)


def load_autoencoder(path: Path) -> SmallAutoencoder:
    """The autoencoder of a weights file, in full precision, for use alone."""
    network = SmallAutoencoder()
    network.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return network.eval().requires_grad_(False)


def padded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The narrow network's weights in the 64-channel layout, under the checkpoint's names."""
    with torch.device("meta"):
        wide = SmallAutoencoder(WIDE, WIDE).state_dict()
    return {AUTOENCODER + name: _grown(weight, wide[name].shape) for name, weight in weights.items()}


def _grown(weight: Tensor, shape: torch.Size) -> Tensor:
    wide = weight.new_zeros(shape)
    wide[tuple(slice(length) for length in weight.shape)] = weight
    return wide
