"""One video adaptor: its settings, and all its modules, named by the place of the UNet where each acts."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import nn

from .fps_embedding import FpsEmbedding
from .frame_adaptor import FrameAdaptor
from .frame_noise import check_shared_noise
from .sites import Site
from .temporal_attention import DirectedTemporalAttention

PARTS = ("frame", "spatial", "temporal", "fps")
# How the noise levels of a training clip's frames are drawn (``training/step_plan.py``).
FrameNoiseLevels = Literal["one_a_clip", "one_a_frame", "clean_context", "finished_frames"]
# Sigma of Stable Diffusion's timestep 20, and of its timestep 500, where a frame is no longer nearly clean.
CONTEXT_NOISE, MOST_CONTEXT_NOISE = 0.14, 1.6
# Fields that files of before may lack.
LATER = {"shared_noise", "frame_noise_levels", "context_noise", "head_channels", "fps_guidance"}


@dataclass(frozen=True)
class AdaptorConfig:
    """Settings of an adaptor; checked when made, and stored as JSON in the checkpoint.

    frames: trained clip length F.  rank: of the attention's projections, 0 for full.  rotary: relative position
    encoding in the attention.  parts: ``frame`` (S and B behind the convolutions), ``spatial`` (the second set, behind
    spatial attention), ``temporal`` (attention), ``fps``.  time_channels, embedding_channels: ends of the UNet's
    timestep MLP.  base: the family of the image model.  shared_noise: how much of each frame's noise, as a share of its
    variance, was the first frame's in training, and therefore is when the adaptor is applied (``frame_noise``).
    frame_noise_levels: how frames of a training clip had their noise; unless it was one level a clip, the adaptor is
    meant to be sampled frame after frame.  context_noise: the sigma at which it is then shown finished frames.
    head_channels: channels of each head of the attention, whose number then follows from the site's; 0 for ``heads``
    heads at all sites.  fps_guidance: clips without a caption had no frame rate either in training, so that guidance
    strengthens the frame rate; the negative side is then not told it.
    """

    sites: tuple[Site, ...]
    frames: int = 16
    heads: int = 8
    rank: int = 0
    rotary: bool = False
    parts: tuple[str, ...] = PARTS
    time_channels: int = 320
    embedding_channels: int = 1280
    base: str = "SD1.5"
    shared_noise: float = 0.0
    frame_noise_levels: FrameNoiseLevels = "one_a_clip"
    context_noise: float = CONTEXT_NOISE
    head_channels: int = 0
    fps_guidance: bool = False

    def __post_init__(self) -> None:
        whole = {"frames": (1, 1024), "heads": (1, 256), "rank": (0, 4096), "head_channels": (0, 4096)}
        whole |= {"time_channels": (2, 65_536), "embedding_channels": (1, 65_536)}
        for name, (least, most) in whole.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, found {value!r}")
        if self.time_channels % 2:
            raise ValueError(f"time_channels must be even, found {self.time_channels}")
        for name in ("rotary", "fps_guidance"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, found {getattr(self, name)!r}")
        if not isinstance(self.base, str):
            raise ValueError(f"base must be a name, found {self.base!r}")
        check_shared_noise(self.shared_noise)
        if self.frame_noise_levels not in get_args(FrameNoiseLevels):
            known = ", ".join(get_args(FrameNoiseLevels))
            raise ValueError(f"frame_noise_levels must be one of {known}, found {self.frame_noise_levels!r}")
        if type(self.context_noise) not in (int, float) or not 0 <= self.context_noise <= MOST_CONTEXT_NOISE:
            raise ValueError(f"context_noise must lie in 0 to {MOST_CONTEXT_NOISE}, found {self.context_noise!r}")
        if not isinstance(self.parts, tuple) or not self.parts or not all(part in PARTS for part in self.parts):
            raise ValueError(f"parts must be some of {', '.join(PARTS)}, found {self.parts!r}")
        self._check_sites()

    def _check_sites(self) -> None:
        names = [site.name for site in self.sites]
        if not names or len(names) > 1024 or len(set(names)) != len(names):
            raise ValueError(f"sites must be 1 to 1024 different places of a UNet, found {len(names)}")
        for site in self.transformers:
            heads = self.heads_at(site)
            if heads < 1 or site.channels % (heads * (2 if self.rotary else 1)):
                raise ValueError(f"{site.name}: {site.channels} channels cannot be shared by {heads} heads")

    def heads_at(self, site: Site) -> int:
        """Heads of the attention at a site."""
        return site.channels // self.head_channels if self.head_channels else self.heads

    @cached_property
    def site_names(self) -> frozenset[str]:
        """Names of all sites."""
        return frozenset(site.name for site in self.sites)

    @cached_property
    def convolutions(self) -> tuple[Site, ...]:
        """The sites behind 3x3 convolutions, where S and B of the part ``frame`` act."""
        return tuple(site for site in self.sites if site.kind == "convolution")

    @cached_property
    def transformers(self) -> tuple[Site, ...]:
        """The sites in transformer blocks, where the parts ``spatial`` and ``temporal`` act."""
        return tuple(site for site in self.sites if site.kind == "transformer")

    def to_json(self) -> str:
        """All settings as one JSON object, as adaptor files hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "AdaptorConfig":
        """The settings that ``to_json`` wrote; those of LATER may be missing and then have their defaults.

        Raises ValueError for anything else.
        """
        found = json.loads(text)
        known = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or set(found) | LATER != known:
            raise ValueError(f"settings must be exactly {', '.join(sorted(known))}")
        if not isinstance(found["sites"], list) or not isinstance(found["parts"], list):
            raise ValueError("sites and parts must be lists")
        if not all(isinstance(row, dict) and set(row) == {"name", "kind", "channels"} for row in found["sites"]):
            raise ValueError("each site must have a name, a kind and channels")
        found["sites"] = tuple(Site(**row) for row in found["sites"])
        return cls(**found | {"parts": tuple(found["parts"])})


class SiteModules(nn.Module):
    """Modules by site name, nested like the UNet's own, so that a state-dict key is the site name as it is."""

    def __init__(self, modules: Iterable[tuple[Site, nn.Module]]) -> None:
        super().__init__()
        for site, module in modules:
            *path, leaf = site.name.split(".")
            parent = self
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent._modules[part]
            parent.add_module(leaf, module)

    def __getitem__(self, name: str) -> nn.Module:
        """The module at the site of that name.  Raises AttributeError if there is none."""
        return self.get_submodule(name)


class VideoAdaptor(nn.Module):
    """All modules of one adaptor, by part and then by site; never contains the UNet.

    Parts that the settings leave out hold no modules, and ``fps`` is then None.  ``operations`` gives the linear
    layers, torch's or the host's.  ``metadata`` is what the adaptor's file says of itself, as text.
    """

    def __init__(
        self,
        config: AdaptorConfig,
        operations: type | ModuleType = nn,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}
        made = {"operations": operations, "device": device}

        def frame_adaptors(part: str, sites: tuple[Site, ...]) -> SiteModules:
            wanted = sites if part in config.parts else ()
            return SiteModules((site, FrameAdaptor(config.frames, site.channels, device)) for site in wanted)

        def attention(site: Site) -> DirectedTemporalAttention:
            return DirectedTemporalAttention(
                site.channels, config.heads_at(site), config.frames, config.rank, config.rotary, **made
            )

        temporal = config.transformers if "temporal" in config.parts else ()
        self.frame = frame_adaptors("frame", config.convolutions)
        self.spatial = frame_adaptors("spatial", config.transformers)
        self.temporal = SiteModules((site, attention(site)) for site in temporal)
        self.fps = (
            FpsEmbedding(config.time_channels, config.embedding_channels, **made) if "fps" in config.parts else None
        )
