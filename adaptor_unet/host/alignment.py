"""Aligned frames in the host: at the adaptor's sites, or on the latents that the model predicts.

Axes: n rows, c channels, h height, w width.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from einops import rearrange
from torch import Tensor

from ..frame_adaptor import apply_change
from ..frame_alignment import ReferenceFrame, alignment, frame_statistics, reference_of
from ..frame_layout import FrameLayout
from ..sites import Site
from .acting import PartlyActing
from .frame_cache import Past, no_past
from .site_call import Change, SiteCall


@dataclass(frozen=True, kw_only=True)
class Alignment(PartlyActing):
    """Settings of one Align Frames node.  ``sites`` are the UNet's places where it acts; none for the latents."""

    node: ClassVar[str] = "Align Frames"
    at: Literal["features", "latent"] = "features"
    sites: tuple[Site, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at not in ("features", "latent"):
            raise ValueError(f"at of Align Frames must be features or latent, found {self.at!r}.")

    def predicted(self, given: dict[str, Any]) -> Tensor:
        """The clean latents of a step as the host is to go on with them: its function behind guidance.

        n c h w -> n c h w.  The host comes here with the whole batch, also where the model ran in chunks.
        """
        latents = given["denoised"]
        if not self.acts_at(float(given["sigma"].flatten()[0])):
            return latents
        frames = self.frames_per_clip or len(latents)
        own = frame_statistics(latents)
        change = alignment(own, reference_of(own, FrameLayout.whole(len(latents) // frames, frames)), self.strength)
        return apply_change(latents.clone(), *(rearrange(x, "n c -> n c 1 1") for x in change))


class AlignmentCall(SiteCall):
    """What it does to the features during one call of the UNet."""

    def __init__(self, number: int, settings: Alignment, layout: FrameLayout, past: Past = no_past) -> None:
        super().__init__(settings.sites)
        self.number, self.settings, self.layout, self.past = number, settings, layout, past

    def change(self, site: str, z: Tensor) -> Change:
        """n c ... -> n c twice"""
        own = frame_statistics(z)
        past = self.past(("alignment", self.number), site, self.layout.clip_of[0], ReferenceFrame)
        return alignment(own, reference_of(own, self.layout, past), self.settings.strength)
