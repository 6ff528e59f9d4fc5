"""``z_i <- S_i z_i + B_i``, by hand and by promise."""

from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from magicvideo.adaptor_unet.frame_adaptor import FrameAdaptor, apply_change

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def by_hand() -> FrameAdaptor:
    """Two frames, one channel: S = (2, 3), B = (10, 20)."""
    adaptor = FrameAdaptor(2, 1).requires_grad_(False)
    adaptor.scale.copy_(torch.tensor([[2.0], [3.0]]))
    adaptor.shift.copy_(torch.tensor([[10.0], [20.0]]))
    return adaptor


def numbers(*values: float) -> Tensor:
    """n -> n 1 1 1"""
    return rearrange(torch.tensor(values, dtype=torch.float32), "n -> n 1 1 1")


def acting(adaptor: FrameAdaptor, z: Tensor, rows: Tensor, strength: float = 1.0) -> Tensor:
    """n c h w -> n c h w, as behind a convolution: ``MotionCall.behind_convolution`` of one motion."""
    return apply_change(z, *(rearrange(x, "n c -> n c 1 1") for x in adaptor.change(rows, strength)))


def draw(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A feature map of 6 frames and 5 channels, a scale_delta and a shift for it, and a residual."""
    z, residual = torch.randn(2, 6, 5, 4, 3, dtype=dtype)
    scale_delta, shift = torch.randn(2, 6, 5, 1, 1, dtype=dtype)
    return z, scale_delta, shift, residual


def test_each_frame_is_scaled_and_shifted_by_its_own_row(by_hand: FrameAdaptor) -> None:
    out = acting(by_hand, numbers(1, 1, 5, 5), torch.tensor([0, 1, 0, 1]))
    assert torch.equal(out, numbers(2 * 1 + 10, 3 * 1 + 20, 2 * 5 + 10, 3 * 5 + 20))


def test_each_channel_has_its_own_scale_and_shift(randomised: Callable[[nn.Module], nn.Module]) -> None:
    adaptor = randomised(FrameAdaptor(3, 7))
    z, rows = torch.randn(3, 7, 2, 2), torch.tensor([2, 0, 1])
    expected = torch.stack(
        [
            torch.stack([z[n, c] * adaptor.scale[row, c] + adaptor.shift[row, c] for c in range(7)])
            for n, row in enumerate(rows)
        ]
    )
    torch.testing.assert_close(acting(adaptor, z.clone(), rows), expected)


def test_a_row_may_serve_many_frames(by_hand: FrameAdaptor) -> None:
    assert torch.equal(acting(by_hand, numbers(1, 2, 3), torch.tensor([1, 1, 1])), numbers(23, 26, 29))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_untrained_adaptor_is_the_identity_bit_for_bit(dtype: torch.dtype) -> None:
    z = torch.randn(4, 8, 5, 5).to(dtype)
    with torch.no_grad():
        assert torch.equal(acting(FrameAdaptor(4, 8), z.clone(), torch.arange(4)), z)
    assert torch.equal(acting(FrameAdaptor(4, 8), z.clone(), torch.arange(4)), z)


def test_the_change_is_the_difference_from_the_identity(by_hand: FrameAdaptor) -> None:
    scale_delta, shift = by_hand.change(torch.tensor([1, 0]))
    assert scale_delta.tolist() == [[2.0], [1.0]] and shift.tolist() == [[20.0], [10.0]]


@pytest.mark.parametrize("strength", [-1.0, 0.5, 2.0])
def test_strength_scales_the_distance_from_the_identity(by_hand: FrameAdaptor, strength: float) -> None:
    out = acting(by_hand, numbers(1, 4), torch.tensor([0, 1]), strength)
    expected = numbers((1 + strength * (2 - 1)) * 1 + strength * 10, (1 + strength * (3 - 1)) * 4 + strength * 20)
    assert torch.equal(out, expected)


def test_strength_zero_is_the_identity_bit_for_bit(randomised: Callable[[nn.Module], nn.Module]) -> None:
    z = torch.randn(4, 8, 5, 5)
    assert torch.equal(acting(randomised(FrameAdaptor(4, 8)), z.clone(), torch.arange(4), 0.0), z)


def test_a_residual_is_scaled_with_z_but_not_added() -> None:
    """The second set acts on z + residual, which the caller adds itself: z + scale_delta (z + residual) + shift."""
    out = apply_change(numbers(3), numbers(2), numbers(100), residual=numbers(5))
    assert torch.equal(out, numbers(3 + 2 * (3 + 5) + 100))


@torch.no_grad()
def test_the_second_set_on_a_sum_equals_the_formula_on_the_sum() -> None:
    z, scale_delta, shift, residual = draw()
    expected = (1 + scale_delta) * (z + residual) + shift
    torch.testing.assert_close(apply_change(z, scale_delta, shift, residual) + residual, expected)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_with_and_without_gradients_give_the_same_bits(with_residual: bool, dtype: torch.dtype) -> None:
    z, scale_delta, shift, residual = draw(dtype)
    residual = residual if with_residual else None
    with torch.enable_grad():
        expected = apply_change(z.clone(), scale_delta, shift, residual)
    with torch.no_grad():
        assert torch.equal(apply_change(z.clone(), scale_delta, shift, residual), expected)
    with torch.inference_mode():
        assert torch.equal(apply_change(z.clone(), scale_delta, shift, residual), expected)


@pytest.mark.parametrize("with_residual", [False, True])
def test_z_is_written_in_place_only_without_gradients(with_residual: bool) -> None:
    z, scale_delta, shift, residual = draw()
    kept = [x.clone() for x in (z, scale_delta, shift, residual)]
    residual_or_none = residual if with_residual else None
    apply_change(z, scale_delta, shift, residual_or_none)
    assert all(torch.equal(x, before) for x, before in zip((z, scale_delta, shift, residual), kept, strict=True))
    with torch.no_grad():
        assert apply_change(z, scale_delta, shift, residual_or_none).data_ptr() == z.data_ptr()
    assert not torch.equal(z, kept[0])
    assert all(torch.equal(x, before) for x, before in zip((scale_delta, shift, residual), kept[1:], strict=True))


def test_gradients_reach_scale_shift_and_features() -> None:
    adaptor, z = FrameAdaptor(2, 3), torch.randn(2, 3, 2, 2, requires_grad=True)
    acting(adaptor, z, torch.arange(2)).sum().backward()
    torch.testing.assert_close(adaptor.scale.grad, z.detach().sum(dim=(2, 3)))
    assert torch.equal(adaptor.shift.grad, torch.full((2, 3), 4.0))
    assert torch.equal(z.grad, torch.ones_like(z))


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_half_precision_features_get_the_change_of_a_float_adaptor(
    randomised: Callable[[nn.Module], nn.Module], dtype: torch.dtype
) -> None:
    adaptor = randomised(FrameAdaptor(4, 8))
    z = torch.randn(4, 8, 5, 5).to(dtype)
    with torch.no_grad():
        out = acting(adaptor, z.clone(), torch.arange(4))
        torch.testing.assert_close(out, acting(adaptor, z.float(), torch.arange(4)).to(dtype), rtol=2e-2, atol=2e-2)
    assert out.dtype == dtype


def test_a_small_change_survives_in_half_precision() -> None:
    """S = 1.0001 is 1 in bfloat16; S - 1 is not 0."""
    adaptor = FrameAdaptor(1, 1).requires_grad_(False)
    adaptor.scale.fill_(1.0001)
    scale_delta, _ = adaptor.change(torch.tensor([0]))
    assert scale_delta.to(torch.bfloat16).item() == pytest.approx(1e-4, rel=1e-2)


def test_two_adaptors_add_up_in_their_changes(by_hand: FrameAdaptor) -> None:
    scale_delta, shift = (2 * rearrange(x, "n c -> n c 1 1") for x in by_hand.change(torch.tensor([0, 1])))
    assert torch.equal(apply_change(numbers(1, 1), scale_delta, shift), numbers(1 + 2 * 1 + 20, 1 + 2 * 2 + 40))
