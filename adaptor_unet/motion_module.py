"""Motion module: the temporal transformers of AnimateDiff (Guo et al. 2023, arXiv 2307.04725) and its relatives.

Axes: b clips or conditionings of a batch, f frames of each, c channels, h height, w width; n = b h w positions, and in
an attention m heads with d channels each, c = m d, and k frames looked at.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu

from .frame_layout import CHUNKS_KEPT, FrameLayout
from .temporal_attention import MOST_ROWS, attend

Layers = type | ModuleType  # where linear layers and norms come from: torch's or the host's
Device = torch.device | str | None
ModuleKind = Literal["AnimateDiff v1", "AnimateDiff v2", "AnimateDiff v3", "AnimateLCM"]
GROUPS, GROUP_EPS = 32, 1e-6
# Tokens, which are positions times frames, that go through a transformer at once: their wide inner layers then need
# little memory, and on a processor they stay in its cache.
MOST_TOKENS, MOST_TOKENS_CPU = 16_384, 4_096


@dataclass(frozen=True)
class MotionModuleConfig:
    """What a file of temporal weights holds; raises ValueError for what cannot be.

    widths: channels of the UNet's levels from the finest on.  depth: transformers at each level of the encoder; the
    decoder has one more.  mid: whether one is in the middle block.  positions: most frames that see each other.
    """

    kind: ModuleKind
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    depth: int = 2
    mid: bool = False
    positions: int = 32
    heads: int = 8

    def __post_init__(self) -> None:
        if self.kind not in get_args(ModuleKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(ModuleKind))}, found {self.kind!r}")
        if not self.widths or not all(0 < width <= 16_384 and width % GROUPS == 0 for width in self.widths):
            raise ValueError(f"widths must be multiples of {GROUPS} up to 16384, found {self.widths}")
        if any(width % self.heads for width in self.widths):
            raise ValueError(f"{self.heads} heads cannot share {self.widths} channels")
        if not 0 < self.depth <= 16 or len(self.widths) > 16:
            raise ValueError(f"at most 16 levels of 16 transformers, found {len(self.widths)} of {self.depth}")
        if not 0 < self.positions <= 4096:
            raise ValueError(f"positions must be a whole number from 1 to 4096, found {self.positions}")

    @property
    def summary(self) -> str:
        """What it is, in words."""
        places = (2 * self.depth + 1) * len(self.widths) + self.mid
        return f"{self.kind}, {places} temporal transformers, up to {self.positions} frames that see each other"

    @property
    def norms_over_frames(self) -> bool:
        """Whether the image model's residual blocks were normalised over all frames together in training."""
        return self.kind == "AnimateDiff v1"


class TemporalAttention(nn.Module):
    """Queries, keys, values and output of one attention over frames; ``MotionBlock`` does the arithmetic between."""

    def __init__(self, channels: int, heads: int, operations: Layers, device: Device) -> None:
        super().__init__()
        self.heads = heads
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, operations.Linear(channels, channels, bias=False, device=device))
        self.to_out = nn.ModuleList([operations.Linear(channels, channels, device=device)])

    def forward(self, z: Tensor, mask: Tensor | None, key_scale: float) -> Tensor:
        """``softmax(s Q K^T / sqrt(d)) V``, n f c -> n f c; every frame sees all, or those that the mask, f k, says."""
        q, k, v = (rearrange(to(z), "n f (m d) -> n m f d", m=self.heads) for to in (self.to_q, self.to_k, self.to_v))
        out = attend(q, k, v, mask, key_scale * q.shape[-1] ** -0.5, two_way=True)
        return self.to_out[0](rearrange(out, "n m f d -> n f (m d)"))


class GatedProjection(nn.Module):
    """GEGLU: ``value * gelu(gate)`` (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, channels: int, operations: Layers, device: Device) -> None:
        super().__init__()
        self.proj = operations.Linear(channels, 8 * channels, device=device)

    def forward(self, z: Tensor) -> Tensor:
        """n f c -> n f 4c"""
        value, gate = self.proj(z).chunk(2, dim=-1)
        return value * gelu(gate)


class FeedForward(nn.Module):
    """``Linear(GEGLU(z))``; the middle of the three holds nothing, as in the files."""

    def __init__(self, channels: int, operations: Layers, device: Device) -> None:
        super().__init__()
        outer = operations.Linear(4 * channels, channels, device=device)
        self.net = nn.ModuleList([GatedProjection(channels, operations, device), nn.Identity(), outer])

    def forward(self, z: Tensor) -> Tensor:
        """n f c -> n f c"""
        return self.net[2](self.net[0](z))


class MotionBlock(nn.Module):
    """Two attentions over frames and a feed-forward, each behind a norm and added to what came in."""

    def __init__(self, channels: int, heads: int, operations: Layers, device: Device) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(channels, heads, operations, device) for _ in range(2))
        self.norms = nn.ModuleList(operations.LayerNorm(channels, device=device) for _ in range(2))
        self.ff = FeedForward(channels, operations, device)
        self.ff_norm = operations.LayerNorm(channels, device=device)

    def forward(self, z: Tensor, encoding: Tensor, mask: Tensor | None, key_scale: float) -> Tensor:
        """n f c -> n f c; values have the position encoding too, f c."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            z = z + attention(norm(z) + encoding, mask, key_scale)
        return z + self.ff(self.ff_norm(z))


class TemporalTransformer(nn.Module):
    """One place of a motion module: ``x + s proj_out(block(proj_in(norm(x))))`` with the frames as tokens."""

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        operations: Layers = nn,
        device: Device = None,
    ) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=GROUP_EPS, device=device)
        self.proj_in = operations.Linear(channels, channels, device=device)
        self.transformer_blocks = nn.ModuleList([MotionBlock(channels, heads, operations, device)])
        self.proj_out = operations.Linear(channels, channels, device=device)

    def forward(self, x: Tensor, layout: FrameLayout, strength: float = 1.0, key_scale: float = 1.0) -> Tensor:
        """(b f) c h w -> (b f) c h w.  ``key_scale`` times the keys: above 1, frames look at fewer others."""
        height, width = x.shape[-2:]
        tokens = rearrange(self.norm(x), "(b f) c h w -> (b h w) f c", f=layout.frames)
        encoding = encoding_in_call(positions_in_call(layout), tokens.shape[-1], x.device).to(tokens)
        mask = mask_of_clips(layout.clip_of, x.device)
        pieces = tokens.split(self._positions_at_once(tokens))

        def change(piece: Tensor) -> Tensor:
            return self.proj_out(self.transformer_blocks[0](self.proj_in(piece), encoding, mask, key_scale))

        if torch.is_grad_enabled():
            tokens = torch.cat([change(piece) for piece in pieces])
        else:  # in the place of what came in, which nobody needs any more
            for piece in pieces:
                piece.copy_(change(piece))
        added = rearrange(tokens, "(b h w) f c -> (b f) c h w", h=height, w=width)
        return torch.add(x, added.to(x), alpha=strength)

    def _positions_at_once(self, tokens: Tensor) -> int:
        most = MOST_TOKENS_CPU if tokens.device.type == "cpu" else MOST_TOKENS
        heads = self.transformer_blocks[0].attention_blocks[0].heads
        return max(1, min(most // tokens.shape[1], MOST_ROWS // heads))


def position_encoding(frames: int, channels: int) -> Tensor:
    """Sinusoids of positions p from 0 on, ``f c``: ``sin(p r_i)`` on even channels, ``cos(p r_i)`` on odd ones, where
    ``r_i = 10000^(-2i / c)``.

    Vaswani et al. 2017, arXiv 1706.03762, section 3.5.  Every file has the same, if it has any.
    """
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000.0) / channels))
    angle = torch.arange(frames)[:, None] * rate
    return rearrange(torch.stack([angle.sin(), angle.cos()]), "two f c -> f (c two)")


def positions_in_call(layout: FrameLayout) -> tuple[int, ...]:
    """The position of each of the f rows: its place among those of its clip that the call holds, counted from 0.

    So a context window has the positions that the module was trained with, wherever in a clip it lies.
    """
    counted: Counter[int] = Counter()
    positions = []
    for clip in layout.clip_of:
        positions.append(counted[clip])
        counted[clip] += 1
    return tuple(positions)


# The two below are asked for at every place of a call, and a copy to a device would let it wait for the processor.


@lru_cache(maxsize=64)
def encoding_in_call(positions: tuple[int, ...], channels: int, device: torch.device) -> Tensor:
    """The position encoding of f rows by ``positions_in_call``, f c in fp32."""
    with torch.inference_mode(False):  # kept for later calls
        return position_encoding(len(positions), channels)[list(positions)].to(device)


@lru_cache(maxsize=CHUNKS_KEPT)
def mask_of_clips(clip_of: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Where frame f may look at frame k, ``f k``: in its own clip; None where there is but one."""
    if len(set(clip_of)) == 1:
        return None
    with torch.inference_mode(False):  # kept for later calls
        clip = torch.tensor(clip_of)
        return (clip[:, None] == clip[None, :]).to(device)


def frames_beside(x: Tensor, frames: int) -> Tensor:
    """(b f) c h w -> b c (f h) w, so that a group norm takes all frames of a clip together."""
    return rearrange(x, "(b f) c h w -> b c (f h) w", f=frames)


def frames_apart(x: Tensor, frames: int) -> Tensor:
    """b c (f h) w -> (b f) c h w"""
    return rearrange(x, "b c (f h) w -> (b f) c h w", f=frames)


class MotionModule(nn.Module):
    """All temporal transformers of one file; never contains the UNet.

    Its state dict has the names of AnimateDiff's files without ``temporal_transformer``.  ``operations`` gives the
    layers, torch's or the host's.
    """

    def __init__(
        self,
        config: MotionModuleConfig,
        operations: Layers = nn,
        device: Device = None,
    ) -> None:
        super().__init__()
        self.config = config

        def block(channels: int, count: int) -> nn.Module:
            transformers = (TemporalTransformer(channels, config.heads, operations, device) for _ in range(count))
            return nn.ModuleDict({"motion_modules": nn.ModuleList(transformers)})

        self.down_blocks = nn.ModuleList(block(width, config.depth) for width in config.widths)
        self.mid_block = block(config.widths[-1], 1) if config.mid else None
        self.up_blocks = nn.ModuleList(block(width, config.depth + 1) for width in reversed(config.widths))

    def places(self) -> dict[str, int]:
        """The name of each temporal transformer and its channels, in the order of the UNet."""
        return {name: one.proj_in.in_features for name, one in self.transformers().items()}

    def transformers(self) -> dict[str, TemporalTransformer]:
        """Each temporal transformer by its name, as ``down_blocks.0.motion_modules.1``."""
        return {name: one for name, one in self.named_modules() if isinstance(one, TemporalTransformer)}


def with_tensors(config: MotionModuleConfig, tensors: dict[str, Tensor], operations: Layers = nn) -> MotionModule:
    """A frozen module that holds the given tensors themselves, its layers taken from ``operations``."""
    module = MotionModule(config, operations, device="meta")
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.requires_grad_(False)
