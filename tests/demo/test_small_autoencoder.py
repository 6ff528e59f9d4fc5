"""The demo's autoencoder and its padding to 64 channels."""

import torch

from magicvideo.demo.model.sizes import AUTOENCODER, PICTURE_CHANNELS
from magicvideo.demo.model.small_autoencoder import DECODER_WIDTHS, ENCODER_WIDTHS, WIDE, SmallAutoencoder, padded


def network() -> SmallAutoencoder:
    torch.manual_seed(0)
    return SmallAutoencoder().requires_grad_(False)


def test_padding_is_for_something() -> None:
    assert {*ENCODER_WIDTHS, *DECODER_WIDTHS} != {PICTURE_CHANNELS}


def test_the_padded_network_codes_alike() -> None:
    narrow, wide = network(), SmallAutoencoder(WIDE, WIDE)
    weights = padded(narrow.state_dict())
    wide.load_state_dict({name.removeprefix(AUTOENCODER): weight for name, weight in weights.items()})
    pictures = torch.rand(2, 3, 64, 48)
    latents = narrow.encode(pictures)
    assert latents.shape == (2, 4, 8, 6) and latents.std() > 0
    torch.testing.assert_close(wide.encode(pictures), latents, atol=1e-6, rtol=1e-5)
    decoded = narrow.decode(20 * latents)
    assert decoded.shape == pictures.shape and decoded.std() > 0
    torch.testing.assert_close(wide.decode(20 * latents), decoded, atol=1e-6, rtol=1e-5)
