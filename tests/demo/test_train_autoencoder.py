"""What the autoencoder learns from, and how it is judged."""

import random

import pytest
import torch
from PIL import Image

from magicvideo.demo.model.small_autoencoder import LATENT_LIMIT
from magicvideo.demo.train.autoencoder import PIECE, Stills, piece_start, psnr, unit_loss
from magicvideo.demo.world.sprite_painter import Painter
from magicvideo.demo.world.sprite_scene import SIDE
from magicvideo.demo.world.subjects import SUBJECTS


@pytest.fixture(scope="module")
def stills() -> Stills:
    sprites = dict.fromkeys(SUBJECTS, Image.new("RGBA", (128, 128), (120, 0, 0, 255)))
    return Stills.drawn(Painter(sprites), 60, seed=3)


def test_a_piece_is_cut_from_its_picture_and_shows_the_sprite(stills: Stills) -> None:
    pieces = stills.pieces(torch.tensor([7, 3]))
    assert pieces.shape == (2, 3, PIECE, PIECE) and stills.pictures.shape[1:] == (3, SIDE, SIDE)
    top, left = stills.corners[3].tolist()
    assert torch.equal(pieces[1], stills.pictures[3][:, top : top + PIECE, left : left + PIECE])
    every = stills.pieces(torch.arange(60))
    assert (every.flatten(1).float().std(dim=1) > 1).all(), "a piece of flat background alone teaches nothing"


@pytest.mark.parametrize("centre", [-5.0, 0.0, 20.0, 33.3, 64.0, 70.0])
def test_pieces_lie_inside_the_picture_and_differ(centre: float) -> None:
    starts = {piece_start(centre, random.Random(seed)) for seed in range(50)}
    assert min(starts) >= 0 and max(starts) <= SIDE - PIECE
    if 20 <= centre <= 44:
        assert len(starts) > 5
        assert all(start <= centre <= start + PIECE for start in starts)


def test_psnr_is_what_the_formula_gives() -> None:
    pictures = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    others = torch.full_like(pictures, 51)
    others[1] = 0
    others[1, 0, 0, 0] = 255
    expected = 20 * torch.tensor([5.0, 48**0.5]).log10()
    torch.testing.assert_close(psnr(pictures, others), expected)


def test_latents_of_unit_size_are_not_pulled_and_others_are() -> None:
    latents = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert unit_loss(latents) < 1e-3
    assert unit_loss(latents + 0.5) == pytest.approx(0.25, abs=0.02)
    shifted = torch.cat([latents[:, :1] * 2, latents[:, 1:]], dim=1)
    assert unit_loss(shifted) == pytest.approx(9 / 4, abs=0.1)
    assert LATENT_LIMIT > 2, "or latents of unit size would be clamped"
