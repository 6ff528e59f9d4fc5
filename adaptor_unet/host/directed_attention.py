"""Directed attention in the host's UNet: frames read earlier frames' tokens with the image model's own self-attention.

It stands at the host's place for replacing self-attention: there keys and values are projected once for each frame, and
a frame that looks at none can have fewer of them than the others.  Where another node has replaced self-attention, that
node's stays: it may need as many keys as queries.  Patches of other nodes before and behind self-attention act as ever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ..directed_attention import SeenFrames, directed_attention
from ..frame_layout import FrameLayout
from ..look_back import LookBack
from ..sites import Site
from .acting import PartlyActing
from .frame_cache import Past, no_past

Options = dict[str, Any]
Block = tuple[str, int, int]

SIDES = {"middle and decoder": ("middle", "output"), "all": ("input", "middle", "output")}


@dataclass(frozen=True, kw_only=True)
class DirectedAttention(PartlyActing):
    """Settings of one Directed Attention node.  ``sites`` are the transformers where it acts."""

    node: ClassVar[str] = "Directed Attention"
    look_back: LookBack = LookBack()
    sites: tuple[Site, ...] = field(default=(), repr=False)


class DirectedCall:
    """What it does during one call of the UNet.  Where two nodes act at a site, the later one counts."""

    def __init__(self, looks: list[tuple[DirectedAttention, FrameLayout]], past: Past = no_past) -> None:
        self.looks, self.past = looks, past
        self.at = {site.block: (number, site.name) for number, (look, _) in enumerate(looks) for site in look.sites}

    @contextmanager
    def hooks(self, unet: nn.Module) -> Iterator[None]:
        """None are needed."""
        yield

    def patched(self, transformer_options: Options) -> Options:
        """The options with our self-attention where no other node has one; the caller's dicts stay as they are."""
        replaced = transformer_options.get("patches_replace", {})
        theirs = replaced.get("attn1", {})
        ours = {block: partial(self.attend, block) for block in self.at if not is_replaced(block, theirs)}
        return {**transformer_options, "patches_replace": {**replaced, "attn1": {**theirs, **ours}}}

    def attend(self, block: Block, q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
        """n p c -> n p c"""

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return optimized_attention(
                q, k, v, options["n_heads"], attn_precision=options["attn_precision"], transformer_options=options
            )

        number, name = self.at[block]
        look, layout = self.looks[number]
        past = self.past(("look", number), name, layout.clip_of[0], SeenFrames)
        return directed_attention(q, k, v, layout, look.look_back, attention, look.strength, past)


def is_replaced(block: Block, replaced: dict) -> bool:
    """The host knows a replacement by its transformer, or by its block for all of them."""
    return block in replaced or block[:2] in replaced


def left_to_others(looks: tuple[DirectedAttention, ...], transformer_options: Options) -> list[str]:
    """Names of the sites where another node's self-attention stays."""
    theirs = transformer_options.get("patches_replace", {}).get("attn1", {})
    return [site.name for look in looks if look.strength for site in look.sites if is_replaced(site.block, theirs)]
