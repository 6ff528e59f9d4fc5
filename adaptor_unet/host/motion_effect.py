"""An adaptor's motion as an effect: hooks on the UNet's convolutions, patches around its attention.

Axes: b clips or conditionings of one call, f frames of each, p positions, c channels, h height, w width; n = b f rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange, repeat
from torch import Tensor, nn

from ..adaptor import VideoAdaptor
from ..fps_embedding import NOT_TOLD
from ..frame_adaptor import apply_change, scale_and_shift
from ..frame_layout import FrameLayout, indices
from ..temporal_attention import KvCache
from .base_model import check_fit, unet_of
from .binding import with_effect
from .call_part import CallPart, HeldSelfAttention, TransformerOptions, block_of
from .effect import Effect
from .frame_cache import CallCache
from .hosted import load_with, on_card_of
from .memory import ACTIVATION_BYTES, SIDES_OF_GUIDANCE, kept_bytes
from .sampling_order import SamplingOrder

Order = Literal["auto", "together", "frame by frame"]
# Tensors of a block's size that live at once beside the host's own: the block's input, its self-attention, and the
# temporal output, whose queries, keys and values come and go in pieces.
HELD_TENSORS = 3


@dataclass(frozen=True, kw_only=True)
class Motion(Effect):
    """Settings of one Apply node; raises ValueError if unusable.

    fps: frames a second, one for all clips of a call or one for each (in training), which may then be NOT_TOLD.
    ``patcher`` is the host's hold on the adaptor, None in training.  ``order``: whether frames are sampled together or
    one after the other, ``chunk`` at a time; ``auto`` does what the adaptor was trained for.  ``later_cfg`` and
    ``history_noise``: of the frames that then have finished ones before them, as in SamplingOrder.
    """

    node: ClassVar[str] = "Apply MagicVideo"
    stage: ClassVar[int] = 0
    most_strength: ClassVar[float] = math.inf
    adaptor: VideoAdaptor = field(repr=False)
    patcher: ModelPatcher | None = field(default=None, repr=False, compare=False)
    fps: float | tuple[float, ...] = 8.0
    order: Order = "auto"
    chunk: int = SamplingOrder.chunk
    later_cfg: float = SamplingOrder.later_cfg
    history_noise: float = SamplingOrder.history_noise

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in get_args(Order):
            raise ValueError(f"order of {self.node} must be one of {', '.join(get_args(Order))}; found {self.order!r}.")
        SamplingOrder(self.chunk, later_cfg=self.later_cfg, history_noise=self.history_noise).check(self.node)
        told = [rate for rate in self.rates if rate != NOT_TOLD or self.fps == NOT_TOLD]
        if not all(math.isfinite(rate) and rate > 0 for rate in told):
            raise ValueError(f"fps of {self.node} must be a finite number above 0, found {self.fps}.")

    @classmethod
    def of(cls, model: ModelPatcher, *, adaptor: ModelPatcher, **settings: object) -> "Motion":
        """The effect for this model; ``adaptor`` is a patcher made by ``hosted``, ``settings`` are further fields.

        Raises ValueError when the adaptor was made for another UNet, and for settings that cannot work.
        """
        check_fit(model, adaptor.model.config)
        return super().of(model, adaptor=adaptor.model, patcher=adaptor, **settings)

    @classmethod
    def parts(cls, acting: Sequence[tuple["Motion", FrameLayout]], cache: CallCache) -> list[CallPart]:
        """Several motions add up at each site."""
        return [MotionCall(acting, cache).part()]

    def attach(self, model: ModelPatcher) -> None:
        """The host loads, offloads and frees the adaptor with the model."""
        load_with(model, self.patcher)

    def on(self, patcher: ModelPatcher) -> "Motion":
        """With the copy of the adaptor on the card of that copy of the model."""
        own = on_card_of(patcher, self.patcher)
        return self if own is None or own.model is self.adaptor else replace(self, adaptor=own.model, patcher=own)

    @property
    def rates(self) -> tuple[float, ...]:
        """The frame rate of each clip of a call, in frames a second; a single one is that of all clips."""
        return self.fps if isinstance(self.fps, tuple) else (self.fps,)

    @property
    def sampling_order(self) -> SamplingOrder | None:
        """How frames are sampled one after the other; None where all are sampled together."""
        config = self.adaptor.config
        trained_so = config.frame_noise_levels != "one_a_clip"
        if self.strength == 0 or self.order == "together" or (self.order == "auto" and not trained_so):
            return None
        return SamplingOrder(self.chunk, config.context_noise, self.later_cfg, self.history_noise)

    def together(self) -> "Motion":
        """With all frames of a clip at once."""
        return replace(self, order="together")

    @property
    def shared_noise(self) -> float:
        """The share that the adaptor was trained with; 0 at strength 0, which leaves the image model as it was."""
        return self.adaptor.config.shared_noise if self.strength else 0.0

    def activation_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """Bytes of the activations of the widest block, for both conditionings."""
        pixels = SIDES_OF_GUIDANCE * frames * height * width
        return pixels * unet_of(model).model_channels * ACTIVATION_BYTES * HELD_TENSORS

    def cache_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """Bytes of the keys and values that temporal attention keeps."""
        config = self.adaptor.config
        if "temporal" not in config.parts:
            return 0
        return kept_bytes(model, config.transformers, min(frames, config.frames - 1), height, width)


class MotionCall:
    """``motions`` with the frames of one call; ``cache`` holds the keys and values of the frames before."""

    def __init__(self, motions: Sequence[tuple[Motion, FrameLayout]], cache: CallCache) -> None:
        self.motions, self.cache = motions, cache
        configs = [motion.adaptor.config for motion, _ in motions]
        self.convolutions = configs[0].convolutions  # those of every adaptor that fits the model
        self.transformers = {site.block: site.name for config in configs for site in config.transformers}
        self.rows = [layout.adaptor_rows(motion.adaptor.config.frames) for motion, layout in motions]
        # Not the layout, of which a long clip has many: past the trained length all frames have the same row.
        self.key = tuple((id(motion), rows) for (motion, _), rows in zip(motions, self.rows, strict=True))
        self.self_attention = HeldSelfAttention()
        self.input: Tensor | None = None

    def part(self) -> CallPart:
        """``z <- S z + B`` behind every convolution.  Around attention, first before it, to see the block's own
        normalised input; last behind it, to add to what comes out."""
        convolutions = self.convolutions if self._have("frame") else ()
        return CallPart(
            hooks={site.name: partial(self.behind_convolution, site.name) for site in convolutions},
            first={"attn1_patch": self.before_attention},
            last={
                "emb_patch": self.add_fps,
                "attn1_output_patch": self.self_attention.hold,
                "attn2_output_patch": self.behind_cross_attention,
            },
        )

    def add_fps(self, embedding: Tensor, model_channels: int, transformer_options: TransformerOptions) -> Tensor:
        """The host's ``emb_patch``: adds the frame rates' embeddings to the time embedding, n c -> n c."""
        have = [one for one in self.motions if one[0].adaptor.fps is not None]
        if not have:
            return embedding
        # Not the frames' places: frames one after the other are told the same.
        told = tuple((id(motion), layout.batch, layout.frames, layout.negative) for motion, layout in have)
        key = ("fps", told, embedding.dtype, embedding.device)
        return embedding + self.cache.once(key, lambda: sum(fps_embedding(*one, embedding) for one in have))

    def before_attention(
        self, z: Tensor, k: Tensor, v: Tensor, options: TransformerOptions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keeps the normalised input z, ``n p c``, which temporal attention reads too."""
        self.input = z
        return z, k, v

    def behind_convolution(self, name: str, convolution: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
        """``S z + B`` behind the convolution of that name, n c h w -> n c h w."""
        return scale_and_shift(z, *self._change("frame", name, z, "n c -> n c 1 1")[:2])

    def behind_cross_attention(self, out: Tensor, options: TransformerOptions) -> Tensor:
        """n p c -> n p c: ``S' S-Attn(z) + B' + T-Attn(z)``, where S-Attn = self-attention + out.

        The block has added self-attention already, so here it is added ``(S' - 1)`` times.
        """
        z, self.input = self.input, None
        self_attention, name = self.self_attention.take(out), self.transformers.get(block_of(options))
        if name is None:
            return out
        if self._have("spatial", name):
            scale, shift, scale_delta = self._change("spatial", name, out, "n c -> n 1 c")
            out = apply_change(out, scale_delta, shift, self_attention, scale)
        for motion, layout in self.motions:
            if has(motion, "temporal", name):
                past = self.cache(id(motion), name, layout, KvCache)
                out = torch.add(out, motion.adaptor.temporal[name](z, layout, past), alpha=motion.strength)
        return out

    def _have(self, part: str, name: str | None = None) -> bool:
        return any(has(motion, part, name) for motion, _ in self.motions)

    def _change(self, part: str, name: str, z: Tensor, shape: str) -> tuple[Tensor, Tensor, Tensor]:
        """S, B and S - 1 of all motions together at a site, in that ``shape`` and on the device of the features z."""

        def change() -> tuple[Tensor, Tensor, Tensor]:
            changes = []
            for (motion, _), rows in zip(self.motions, self.rows, strict=True):
                if has(motion, part, name):
                    site = getattr(motion.adaptor, part)[name]
                    changes.append(site.change(indices(rows, site.scale.device), motion.strength))
            scale_delta, shift = (rearrange(sum(x), shape).to(z.device) for x in zip(*changes, strict=True))
            return 1 + scale_delta, shift, scale_delta

        return self.cache.once((self.key, part, name, z.device), change)


def has(motion: Motion, part: str, name: str | None = None) -> bool:
    """Whether a motion's adaptor has this part, and at the site of that name, if one is named."""
    config = motion.adaptor.config
    return part in config.parts and (name is None or name in config.site_names)


def fps_embedding(motion: Motion, layout: FrameLayout, like: Tensor) -> Tensor:
    """``n c`` or, of one frame rate, ``1 c``: what a motion adds to the time embedding, for embeddings ``like`` these.

    The negative side is not told the rate if that is how the adaptor was trained.  Rates stay in fp32 until after the
    sinusoid.
    """
    rates = motion.rates
    if motion.adaptor.config.fps_guidance and any(layout.negative):
        rates = [NOT_TOLD if one else rates[b % len(rates)] for b, one in enumerate(layout.negative)]
    rates = torch.tensor(rates).to(like.device)
    added = motion.strength * motion.adaptor.fps(rates, like.dtype)
    return added if len(added) == 1 else repeat(added, "b c -> (b f) c", f=layout.frames)


def bind(model: ModelPatcher, adaptor: ModelPatcher, **settings: object) -> ModelPatcher:
    """A clone of the model that treats a latent batch as the frames of clips; the model itself stays as it is.

    On a model that is bound already the two motions add up.  ``settings`` are those of ``Motion.of``.
    """
    return with_effect(model, Motion.of(model, adaptor=adaptor, **settings))
