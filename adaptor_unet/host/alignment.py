"""Aligned frames in the host: at the adaptor's sites, or on the latents that the model predicts.

Axes: b runs, f frames, n = b f rows, c channels, h height, w width, p positions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from ..frame_adaptor import apply_change
from ..frame_alignment import ReferenceFrame, alignment, frame_statistics, reference_of
from ..frame_layout import FrameLayout
from ..sites import Site
from .acting import PartlyActing
from .frame_cache import Past, no_past

Options = dict[str, Any]
Change = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Alignment(PartlyActing):
    """Settings of one Align Frames node.

    ``sites`` are the UNet's places where it acts; none for the latents.  ``told`` hears of each site, the frames of the
    call, and their change: gain and shift, n c each.
    """

    node: ClassVar[str] = "Align Frames"
    at: Literal["features", "latent"] = "latent"
    sites: tuple[Site, ...] = field(default=(), repr=False)
    told: Callable[[str, FrameLayout, Change], None] | None = None

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


class AlignmentCall:
    """What it does to the features during one call of the UNet.

    Its hooks and patches come after those of the motions, so that it sees what they make.
    """

    def __init__(self, number: int, settings: Alignment, layout: FrameLayout, past: Past = no_past) -> None:
        self.number, self.settings, self.layout, self.past = number, settings, layout, past
        self.convolutions = [site.name for site in settings.sites if site.kind == "convolution"]
        self.transformers = {site.block: site.name for site in settings.sites if site.kind == "transformer"}
        self.self_attention: Tensor | None = None

    @contextmanager
    def hooks(self, unet: nn.Module) -> Iterator[None]:
        """Behind every convolution, for as long as the context lasts."""
        handles = []
        try:
            for name in self.convolutions:
                handles.append(unet.get_submodule(name).register_forward_hook(self._behind(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def patched(self, transformer_options: Options) -> Options:
        """The options with our patches added; the caller's dicts and lists stay as they are."""
        patches = dict(transformer_options.get("patches", {}))
        for name, patch in (
            ("attn1_output_patch", self.behind_self_attention),
            ("attn2_output_patch", self.behind_cross_attention),
        ):
            patches[name] = [*patches.get(name, []), patch]
        return {**transformer_options, "patches": patches}

    def behind_self_attention(self, out: Tensor, options: Options) -> Tensor:
        """Keeps the self-attention's output, n p c."""
        self.self_attention = out
        return out

    def behind_cross_attention(self, out: Tensor, options: Options) -> Tensor:
        """n p c -> n p c: S-Attn, and what T-Attn has added to it, aligned.

        The block has added the self-attention already, so here its change is added alone.
        """
        beside, self.self_attention = self.self_attention.to(out), None
        name = self.transformers[(*options["block"], options.get("block_index", 0))]
        gain, shift = (
            rearrange(x, "n c -> n 1 c") for x in self.change(name, rearrange(out + beside, "n p c -> n c p"))
        )
        return apply_change(out, gain, shift, beside=beside)

    def change(self, site: str, z: Tensor) -> Change:
        """Gain and shift of features, n c ... -> n c twice."""
        own = frame_statistics(z)
        past = self.past(("alignment", self.number), site, self.layout.clip_of[0], ReferenceFrame)
        change = alignment(own, reference_of(own, self.layout, past), self.settings.strength)
        if self.settings.told is not None:
            self.settings.told(site, self.layout, change)
        return change

    def _behind(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(convolution: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
            return apply_change(z, *(rearrange(x, "n c -> n c 1 1") for x in self.change(name, z)))

        return hook
