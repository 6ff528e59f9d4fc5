"""``Linear(SiLU(Linear(sinusoid(fps))))``."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from magicvideo.adaptor_unet.fps_embedding import FpsEmbedding, sinusoid


def test_the_sinusoid_by_hand() -> None:
    """Four channels: rates 1 and 1 / 100, cosines first."""
    out = sinusoid(torch.tensor([8.0, 24.0]), 4)
    expected = [[math.cos(v), math.cos(v / 100), math.sin(v), math.sin(v / 100)] for v in (8, 24)]
    torch.testing.assert_close(out, torch.tensor(expected))


def test_the_rates_of_the_sinusoid_fall_evenly_from_one() -> None:
    """Eight channels: each of the four rates is a tenth of the one before."""
    values = [math.cos(3 / 10**i) for i in range(4)] + [math.sin(3 / 10**i) for i in range(4)]
    torch.testing.assert_close(sinusoid(torch.tensor([3.0]), 8), torch.tensor([values]))


def test_the_embedding_is_two_layers_with_a_silu_between() -> None:
    embedding = FpsEmbedding(2, 1).requires_grad_(False)
    for layer, weight, bias in ((embedding.inner, [[2.0, 3.0]], 0.5), (embedding.outer, [[5.0]], 7.0)):
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.fill_(bias)
    inner = 2 * math.cos(8) + 3 * math.sin(8) + 0.5
    expected = 5 * inner / (1 + math.exp(-inner)) + 7
    assert embedding(torch.tensor([8.0])).item() == pytest.approx(expected, rel=1e-5)


def test_an_untrained_embedding_adds_nothing() -> None:
    assert FpsEmbedding(32, 64)(torch.tensor([1.0, 8.0, 30.0])).count_nonzero() == 0


def test_each_number_is_embedded_by_itself(randomised: Callable[[nn.Module], nn.Module]) -> None:
    embedding, fps = randomised(FpsEmbedding(32, 64)), torch.tensor([1.0, 8.0, 29.97])
    out = embedding(fps)
    assert out.shape == (3, 64)
    torch.testing.assert_close(out, torch.cat([embedding(one) for one in fps.split(1)]))


def test_different_rates_give_different_embeddings(randomised: Callable[[nn.Module], nn.Module]) -> None:
    out = randomised(FpsEmbedding(320, 16))(torch.tensor([7.9, 8.0, 8.1, 24.0, 240.0]))
    assert torch.pdist(out).min() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_rate(randomised: Callable[[nn.Module], nn.Module], dtype: torch.dtype) -> None:
    embedding = randomised(FpsEmbedding(32, 64))
    expected = embedding(torch.tensor([24.0]))
    out = embedding.to(dtype)(torch.tensor([24.0], dtype=dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)


def test_the_sinusoid_is_reckoned_in_full_precision_for_half_precision_rates() -> None:
    assert torch.equal(sinusoid(torch.tensor([24.0]).half(), 320), sinusoid(torch.tensor([24.0]), 320))


def test_layers_come_from_the_given_operations() -> None:
    class Operations:
        class Linear(nn.Linear):
            pass

    embedding = FpsEmbedding(4, 8, operations=Operations, device="meta")
    assert all(type(layer) is Operations.Linear and layer.weight.is_meta for layer in embedding.children())
