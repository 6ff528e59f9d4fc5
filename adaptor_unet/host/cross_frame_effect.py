"""Cross-frame attention as an effect: frames read earlier frames' tokens with the image model's own self-attention.

It stands at the host's place for replacing self-attention: there keys and values are projected once for each frame, and
a frame that looks at none can have fewer of them than the others.  Where another node has replaced self-attention, that
node's stays: it may need as many keys as queries.  Patches of other nodes before and behind self-attention act as ever.

Axes: n rows of a call, p positions, c channels.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..cross_frame_attention import MOST_QUERIES_GPU, CrossFrameKvCache, LookBack, cross_frame_attention
from ..frame_layout import FrameLayout
from ..sites import Site
from .base_model import config_for, unet_of
from .call_part import Block, CallPart, ModelOptions, TransformerOptions, is_replaced
from .effect import Effect
from .frame_cache import CallCache
from .memory import ACTIVATION_BYTES, SIDES_OF_GUIDANCE, kept_bytes

logger = logging.getLogger(__name__)

UNET_SIDES = {"middle and decoder": ("middle", "output"), "all": ("input", "middle", "output")}


@dataclass(frozen=True, kw_only=True)
class CrossFrameAttention(Effect):
    """Settings of one Cross-Frame Attention node.  ``sites`` are the transformers where it acts."""

    node: ClassVar[str] = "Cross-Frame Attention"
    stage: ClassVar[int] = 1
    look_back: LookBack = LookBack()
    sites: tuple[Site, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        *,
        look_back: str = LookBack.rule,
        last_frames: int = LookBack.last,
        where: str = "middle and decoder",
        **settings: object,
    ) -> "CrossFrameAttention":
        """Raises ValueError when the model or the settings do not fit."""
        if where not in UNET_SIDES:
            raise ValueError(f"where of {cls.node} must be one of {', '.join(UNET_SIDES)}; found {where!r}.")
        sites = tuple(site for site in config_for(model).transformers if site.block[0] in UNET_SIDES[where])
        return super().of(model, look_back=LookBack(look_back, last_frames), sites=sites, **settings)

    @classmethod
    def parts(cls, acting: Sequence[tuple["CrossFrameAttention", FrameLayout]], cache: CallCache) -> list[CallPart]:
        """Where two nodes act at a site, the later one counts."""
        at: dict[Block, Callable] = {}
        for effect, layout in acting:
            for site in effect.sites:
                at[site.block] = partial(effect.attend, layout, partial(cache, id(effect), site.name))
        return [CallPart(self_attention=at)]

    def attend(
        self, layout: FrameLayout, cache_of: CallCache, q: Tensor, k: Tensor, v: Tensor, options: TransformerOptions
    ) -> Tensor:
        """n p c -> n p c: self-attention of one block, each frame over its own tokens and those that it looks at."""

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return optimized_attention(
                q, k, v, options["n_heads"], attn_precision=options["attn_precision"], transformer_options=options
            )

        past = cache_of(layout, CrossFrameKvCache)
        return cross_frame_attention(q, k, v, layout, self.look_back, attention, self.strength, past)

    def before_sampling(self, frames: int, model_options: ModelOptions) -> None:
        """Names the sites where another node's self-attention stays."""
        theirs = model_options.get("transformer_options", {}).get("patches_replace", {}).get("attn1", {})
        others = [site.name for site in self.sites if self.strength and is_replaced(site.block, theirs)]
        if others:
            logger.warning("%s leaves self-attention to another node at: %s.", self.node, ", ".join(others))

    def activation_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """Keys and values that one attention call of the widest block reads, and those of its frames with the past."""
        if not self.strength:
            return 0
        most = self.look_back.most(frames)
        at_once = max(1, MOST_QUERIES_GPU // (height * width))
        gathered = min(SIDES_OF_GUIDANCE * frames, at_once) * (1 + most) + SIDES_OF_GUIDANCE * (frames + most)
        return 2 * gathered * height * width * unet_of(model).model_channels * ACTIVATION_BYTES

    def cache_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """Keys and values of the frames that are looked at."""
        if not self.strength:
            return 0
        return kept_bytes(model, self.sites, self.look_back.most(frames - 1), height, width)
