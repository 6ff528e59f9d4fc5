"""How a new adaptor starts."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.initialisation import new_adaptor, start_from
from magicvideo.adaptor_unet.sites import find_sites
from magicvideo.adaptor_unet.temporal_attention import Projection

WeightOf = Callable[[str], Tensor]


@pytest.fixture
def config(small_unet: nn.Module) -> AdaptorConfig:
    return AdaptorConfig(find_sites(small_unet), frames=4, heads=2, time_channels=16, embedding_channels=64)


@pytest.fixture
def weight_of(small_unet: nn.Module) -> WeightOf:
    return small_unet.get_parameter


def same(one: VideoAdaptor, other: VideoAdaptor) -> bool:
    return all(torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())


def test_spatial_copies_query_key_and_value_weights(config: AdaptorConfig, weight_of: WeightOf) -> None:
    adaptor = new_adaptor(config, "spatial", 0, weight_of)
    assert len(config.transformers) == 16
    for site in config.transformers:
        for part in ("to_q", "to_k", "to_v"):
            weight = getattr(adaptor.temporal[site.name], part).up.weight
            assert torch.equal(weight, weight_of(f"{site.name}.attn1.{part}.weight"))


def test_spatial_owns_its_copies(config: AdaptorConfig, weight_of: WeightOf) -> None:
    name = config.transformers[0].name
    adaptor = new_adaptor(config, "spatial", 0, weight_of)
    with torch.no_grad():
        adaptor.temporal[name].to_q.up.weight.zero_()
    assert weight_of(f"{name}.attn1.to_q.weight").count_nonzero()


def test_spatial_takes_half_precision_weights(config: AdaptorConfig, weight_of: WeightOf) -> None:
    for rank in (0, 2):
        ranked = dataclasses.replace(config, rank=rank)
        adaptor = new_adaptor(ranked, "spatial", 0, lambda name: weight_of(name).half())
        assert all(parameter.dtype == torch.float32 for parameter in adaptor.parameters())


@pytest.mark.parametrize("rank", [1, 4, 16, 48])
@pytest.mark.parametrize("falling", [0.0, 0.5, 2.0], ids=["flat", "falling", "steep"])
def test_with_a_rank_the_start_is_the_best_approximation(rank: int, falling: float) -> None:
    """Error of the truncated singular value decomposition, which nothing of that rank can beat (Eckart and Young)."""
    u, v = (torch.linalg.qr(torch.randn(48, 48)).Q for _ in range(2))
    weight = u * torch.arange(1, 49) ** -falling @ v
    projection = Projection(48, rank)
    start_from(projection, weight)
    product = projection.up.weight @ projection.down.weight
    best = torch.linalg.svdvals(weight)[rank:].norm()
    assert (weight - product).norm() <= 1.01 * best + 1e-5 * weight.norm()


def test_the_two_matrices_of_a_rank_share_its_size() -> None:
    projection = Projection(16, 4)
    start_from(projection, torch.randn(16, 16))
    up, down = projection.up.weight, projection.down.weight
    torch.testing.assert_close(up.mT @ up, down @ down.mT, rtol=1e-3, atol=1e-4)


def test_a_rank_above_the_channels_of_a_site_copies_exactly(config: AdaptorConfig, weight_of: WeightOf) -> None:
    """One rank serves sites of several widths; the narrow ones then need less."""
    adaptor = new_adaptor(dataclasses.replace(config, rank=24), "spatial", 0, weight_of)
    site = config.transformers[0]
    projection = adaptor.temporal[site.name].to_q
    assert site.channels == 16 and projection.up.weight.shape == (16, 24)
    product = projection.up.weight @ projection.down.weight
    torch.testing.assert_close(product, weight_of(f"{site.name}.attn1.to_q.weight"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init", ["spatial", "random"])
@pytest.mark.parametrize("rank", [0, 4])
def test_every_start_is_the_identity(config: AdaptorConfig, weight_of: WeightOf, init: str, rank: int) -> None:
    adaptor = new_adaptor(dataclasses.replace(config, rank=rank), init, 0, weight_of)
    for name, tensor in adaptor.state_dict().items():
        if ".to_out.up." in name or name.startswith("fps.outer.") or name.endswith(".shift"):
            assert not tensor.count_nonzero(), name
        elif name.endswith(".scale"):
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        else:
            assert tensor.count_nonzero() == tensor.numel(), name


@pytest.mark.parametrize("init", ["spatial", "random"])
@pytest.mark.parametrize("rank", [0, 4])
def test_the_seed_decides_the_weights(config: AdaptorConfig, weight_of: WeightOf, init: str, rank: int) -> None:
    config = dataclasses.replace(config, rank=rank)
    first = new_adaptor(config, init, 7, weight_of)
    torch.randn(3)  # whatever else the process draws
    assert same(first, new_adaptor(config, init, 7, weight_of))
    assert not same(first, new_adaptor(config, init, 8, weight_of))


@pytest.mark.parametrize("init", ["spatial", "random"])
@pytest.mark.parametrize("rank", [0, 4])
def test_the_global_random_state_is_untouched(config: AdaptorConfig, weight_of: WeightOf, init: str, rank: int) -> None:
    before = torch.random.get_rng_state()
    new_adaptor(dataclasses.replace(config, rank=rank), init, 7, weight_of)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_largest_seed_of_the_host_works(small_config: AdaptorConfig) -> None:
    assert not same(new_adaptor(small_config, "random", 2**64 - 1), new_adaptor(small_config, "random", 0))


def test_random_weights_fill_the_range_of_linear_layers(config: AdaptorConfig) -> None:
    adaptor = new_adaptor(config, "random", 0)
    for layer in (adaptor.temporal[config.transformers[-1].name].to_q.up, adaptor.fps.inner):
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.mean()) < 0.2 * bound


def test_weights_of_two_places_differ(config: AdaptorConfig) -> None:
    adaptor = new_adaptor(config, "random", 0)
    first, second = (adaptor.temporal[site.name] for site in config.transformers[:2])
    assert not torch.equal(first.to_q.up.weight, second.to_q.up.weight)
    assert not torch.equal(first.to_q.up.weight, first.to_k.up.weight)


def test_without_temporal_attention_no_weight_is_asked_for(config: AdaptorConfig) -> None:
    def never(name: str) -> Tensor:
        raise AssertionError(name)

    new_adaptor(dataclasses.replace(config, parts=("frame", "fps")), "spatial", 0, never)


def test_an_unknown_start_is_refused(small_config: AdaptorConfig) -> None:
    with pytest.raises(ValueError, match="init must be spatial or random, found 'zero'"):
        new_adaptor(small_config, "zero")


def test_spatial_without_weights_is_refused(small_config: AdaptorConfig) -> None:
    with pytest.raises(ValueError, match="needs the image model's self-attention weights"):
        new_adaptor(small_config, "spatial")
