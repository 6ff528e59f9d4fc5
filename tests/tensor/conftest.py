"""Small adaptors, and stand-ins for the UNet of Stable Diffusion 1.5 with its module names and nothing else."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.sites import Site

SMALL_SITES = (
    Site("input_blocks.0.0", "convolution", 8),
    Site("input_blocks.1.0.in_layers.2", "convolution", 12),
    Site("middle_block.1.transformer_blocks.0", "transformer", 8),
)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test draws the same numbers, whichever tests ran before it; threads only slow such small tensors down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_config() -> AdaptorConfig:
    return AdaptorConfig(SMALL_SITES, frames=4, heads=2, time_channels=4, embedding_channels=8)


@pytest.fixture
def trained_small(small_config: AdaptorConfig) -> VideoAdaptor:
    """An adaptor none of whose weights is at its start."""
    return with_random_weights(VideoAdaptor(small_config))


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Gives every weight of a module a random value, as training would."""
    return with_random_weights


def with_random_weights(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module.requires_grad_(False)


@pytest.fixture(scope="session")
def sd15_unet() -> nn.Module:
    """SD1.5's UNet by names and widths, without memory for its weights."""
    return sd_unet(320, "meta")


@pytest.fixture
def small_unet() -> nn.Module:
    """The same names, 16 channels wide instead of 320."""
    return sd_unet(16, "cpu")


def conv(inner: int, outer: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, size, padding=size // 2)


def named(**children: nn.Module) -> nn.Module:
    parent = nn.Module()
    for name, child in children.items():
        parent.add_module(name, child)
    return parent


def res_block(inner: int, outer: int, embedding: int) -> nn.Module:
    return named(
        in_layers=nn.Sequential(nn.GroupNorm(8, inner), nn.SiLU(), conv(inner, outer)),
        emb_layers=nn.Sequential(nn.SiLU(), nn.Linear(embedding, outer)),
        out_layers=nn.Sequential(nn.GroupNorm(8, outer), nn.SiLU(), nn.Dropout(0), conv(outer, outer)),
        skip_connection=conv(inner, outer, 1) if inner != outer else nn.Identity(),
    )


def attention(channels: int) -> nn.Module:
    return named(**{name: nn.Linear(channels, channels, bias=False) for name in ("to_q", "to_k", "to_v")})


def transformer(channels: int) -> nn.Module:
    block = named(
        attn1=attention(channels), norm1=nn.LayerNorm(channels), attn2=attention(channels), norm2=nn.LayerNorm(channels)
    )
    return named(
        norm=nn.GroupNorm(8, channels),
        proj_in=conv(channels, channels, 1),
        transformer_blocks=nn.ModuleList([block]),
        proj_out=conv(channels, channels, 1),
    )


def sd_unet(width: int, device: str) -> nn.Module:
    """Two residual blocks a level, attention on all but the last level, as in SD1.5."""
    with torch.device(device):
        widths, embedding = [width, 2 * width, 4 * width, 4 * width], 4 * width
        channels, skips = width, [width]
        inputs = nn.ModuleList([nn.Sequential(conv(4, width))])
        for level, outer in enumerate(widths):
            for _ in range(2):
                blocks = [res_block(channels, outer, embedding)] + ([transformer(outer)] if level < 3 else [])
                inputs.append(nn.Sequential(*blocks))
                channels = outer
                skips.append(channels)
            if level < 3:
                inputs.append(nn.Sequential(named(op=conv(channels, channels))))
                skips.append(channels)
        middle = nn.Sequential(
            res_block(channels, channels, embedding), transformer(channels), res_block(channels, channels, embedding)
        )
        outputs = nn.ModuleList()
        for level, outer in reversed(list(enumerate(widths))):
            for number in range(3):
                blocks = [res_block(channels + skips.pop(), outer, embedding)]
                channels = outer
                blocks += [transformer(channels)] if level < 3 else []
                blocks += [named(conv=conv(channels, channels))] if level and number == 2 else []
                outputs.append(nn.Sequential(*blocks))
        return named(
            time_embed=nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)),
            input_blocks=inputs,
            middle_block=middle,
            output_blocks=outputs,
            out=nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), conv(width, 4)),
        )
