"""AdaIN over the frames of a clip as an effect: at the adaptor's sites, or on the latents that the model predicts.

Axes: n rows of a call, c channels, h height, w width, p positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, get_args

from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor, nn

from ..adain import ReferenceStatistics, adain, frame_statistics, reference_of
from ..calibration import Change
from ..frame_adaptor import apply_change, scale_and_shift
from ..frame_layout import FrameLayout
from ..sites import Site
from .base_model import config_for
from .call_part import CallPart, HeldSelfAttention, TransformerOptions, block_of
from .effect import Effect
from .finished_frames import finished_frames
from .frame_cache import MADE_ONCE_KEY, CallCache
from .unet_call import clip_layout, sigma_where_it_counts

At = Literal["latent", "features"]
GIVEN_FIRST = (
    "{node} at features does next to nothing here: it compares each frame with the first one at the same noise, and a "
    "first frame that is given is seen without noise alone. Set its at to latent, or order to together."
)


@dataclass(frozen=True, kw_only=True)
class Adain(Effect):
    """Settings of one Frame AdaIN node.

    ``sites`` are the places of the UNet where it acts; none if it acts on the latents.  ``told`` is called at each site
    with the site's name, the frames of the call, and what AdaIN does to them: S - 1 and B, n c each.
    """

    node: ClassVar[str] = "Frame AdaIN"
    stage: ClassVar[int] = 2  # behind all others of the pack
    at: At = "latent"
    sites: tuple[Site, ...] = field(default=(), repr=False)
    told: Callable[[str, FrameLayout, Change], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at not in get_args(At):
            raise ValueError(f"at of Frame AdaIN must be features or latent, found {self.at!r}.")

    @classmethod
    def of(cls, model: ModelPatcher, *, at: str = at, **settings: object) -> "Adain":
        """The effect for this model, at its sites or on its latents.  Raises ValueError when it does not fit."""
        sites = config_for(model).sites
        return super().of(model, at=at, sites=sites if at == "features" else (), **settings)

    @classmethod
    def parts(cls, acting: Sequence[tuple["Adain", FrameLayout]], cache: CallCache) -> list[CallPart]:
        """A part for each node that acts at features, one after the other."""
        return [
            AdainCall(effect, layout, partial(cache, id(effect))).part() for effect, layout in acting if effect.sites
        ]

    @property
    def given_first(self) -> str:
        """A given frame goes through the UNet once, nearly clean: of features under noise it says nothing."""
        return GIVEN_FIRST.format(node=self.node) if self.sites else ""

    def attach(self, model: ModelPatcher) -> None:
        """On the latents it acts behind guidance, not in the UNet."""
        if self.at == "latent":
            model.set_model_sampler_post_cfg_function(self.predicted)

    def predicted(self, given: dict[str, Any]) -> Tensor:
        """The clean latents of a step as the host is to go on with them: its function behind guidance.

        n c h w -> n c h w.  The host comes here with the whole batch, also where the model ran in causal windows; where
        frames are made one after the other, with those in the making, whose reference is the finished first frame.
        """
        latents, sampling = given["denoised"], given["model"].model_sampling
        options = given["model_options"].get("transformer_options", {})
        once = CallCache(made_once=options.get(MADE_ONCE_KEY)).once
        levels = once(("levels", id(self), id(sampling)), lambda: self.levels(sampling))
        if not self.acts_at(sigma_where_it_counts(given["sigma"], [levels]), levels):
            return latents
        own, finished = frame_statistics(latents), finished_frames(options)
        layout = clip_layout(len(latents), {"context_window": options.get("context_window")}, self.frames_per_clip)
        first = finished.first_frames(layout) if finished else None
        reference = reference_of(own, layout) if first is None else frame_statistics(first)
        scale, shift = (rearrange(x, "n c -> n c 1 1") for x in adain(own, reference, self.strength))
        return scale_and_shift(latents.clone(), scale, shift)


class AdainCall:
    """AdaIN of one node at the features during one call of the UNet; ``cache`` holds the first frame's statistics."""

    def __init__(self, effect: Adain, layout: FrameLayout, cache: CallCache) -> None:
        self.effect, self.layout, self.cache = effect, layout, cache
        self.transformers = {site.block: site.name for site in effect.sites if site.kind == "transformer"}
        self.self_attention = HeldSelfAttention()

    def part(self) -> CallPart:
        """Hooks behind the convolutions, patches behind self-attention and cross-attention."""
        convolutions = [site.name for site in self.effect.sites if site.kind == "convolution"]
        return CallPart(
            hooks={name: partial(self.behind_convolution, name) for name in convolutions},
            last={
                "attn1_output_patch": self.self_attention.hold,
                "attn2_output_patch": self.behind_cross_attention,
            },
        )

    def behind_convolution(self, name: str, convolution: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
        """AdaIN of the features behind the convolution of that name, n c h w -> n c h w."""
        scale, shift = (rearrange(x, "n c -> n c 1 1") for x in self.scale_and_shift_at(name, z))
        return scale_and_shift(z, scale, shift)

    def behind_cross_attention(self, out: Tensor, options: TransformerOptions) -> Tensor:
        """n p c -> n p c: AdaIN of S-Attn and what T-Attn has added to it, self-attention + ``out``.

        The block has added the self-attention already, so of that only its change is added here.
        """
        self_attention, name = self.self_attention.take(out), self.transformers.get(block_of(options))
        if name is None:  # of transformers with several blocks, sites may be the first of each alone
            return out
        z = rearrange(out + self_attention, "n p c -> n c p")
        scale, shift = (rearrange(x, "n c -> n 1 c") for x in self.scale_and_shift_at(name, z))
        return apply_change(out, scale - 1, shift, self_attention, scale)

    def scale_and_shift_at(self, site: str, z: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and shift that AdaIN applies to the features z of a site: n c ... -> n c each."""
        own = frame_statistics(z)
        past = self.cache(site, self.layout, ReferenceStatistics)
        scale, shift = adain(own, reference_of(own, self.layout, past), self.effect.strength)
        if self.effect.told is not None:
            self.effect.told(site, self.layout, (scale - 1, shift))
        return scale, shift
