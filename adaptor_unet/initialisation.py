"""How a new adaptor starts: as the identity, with attention weights from the image model or at random.

Axes: o output channels, i input channels, r rank.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .adaptor import AdaptorConfig, VideoAdaptor
from .temporal_attention import Projection

Init = Literal["spatial", "random"]


def new_adaptor(
    config: AdaptorConfig,
    init: Init = "spatial",
    seed: int = 0,
    spatial_weight: Callable[[str], Tensor] | None = None,
) -> VideoAdaptor:
    """An adaptor that changes nothing yet.

    ``init="spatial"`` starts q, k and v from the block's own self-attention, ``spatial_weight(name) -> o i`` giving its
    weights by UNet name: it trains faster than ``"random"``.  With a rank the nearest matrices of that rank are used.
    Raises ValueError for an unknown ``init`` or a missing ``spatial_weight``.
    """
    if init not in ("spatial", "random"):
        raise ValueError(f"init must be spatial or random, found {init!r}")
    if init == "spatial" and spatial_weight is None:
        raise ValueError("init spatial needs the image model's self-attention weights")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # new layers and svd_lowrank draw from the global state
        torch.default_generator.manual_seed(seed)
        adaptor = VideoAdaptor(config)
        for module in adaptor.modules():
            if isinstance(module, nn.Linear) and module.weight.count_nonzero():
                draw(module, generator)
        if init == "spatial":
            start_from_spatial(adaptor, spatial_weight)
    return adaptor


def start_from_spatial(adaptor: VideoAdaptor, spatial_weight: Callable[[str], Tensor]) -> None:
    """Sets q, k and v of temporal attention at every site from the block's own self-attention.

    ``spatial_weight(name) -> o i`` gives a weight of the image model by its name in the UNet.
    """
    for site in adaptor.config.transformers if "temporal" in adaptor.config.parts else ():
        for part in ("to_q", "to_k", "to_v"):
            start_from(getattr(adaptor.temporal[site.name], part), spatial_weight(f"{site.name}.attn1.{part}.weight"))


@torch.no_grad()
def draw(layer: nn.Linear, generator: torch.Generator) -> None:
    """Draws weight and bias of a layer uniformly from +-1 / sqrt(i), torch's own rule, by the given generator alone."""
    bound = layer.in_features**-0.5
    for parameter in layer.parameters():
        parameter.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def start_from(projection: Projection, weight: Tensor) -> None:
    """Sets a projection to a weight ``o i``: copied, or with a rank the nearest matrix of that rank.

    That is ``(U sqrt(s)) (sqrt(s) V)`` of its largest singular values (Eckart and Young 1936).
    """
    if isinstance(projection.down, nn.Identity):
        projection.up.weight.copy_(weight)
        return
    kept = min(projection.down.out_features, *weight.shape)  # any further rank adds nothing until trained
    drawn = min(kept + 8, *weight.shape)  # a few more directions than kept, then the strongest
    u, s, v = (x[..., :kept] for x in torch.svd_lowrank(weight.float(), q=drawn, niter=4))
    projection.up.weight.zero_()
    projection.up.weight[:, :kept] = u * s.sqrt()
    projection.down.weight[:kept] = (v * s.sqrt()).mT
