"""A public motion module as an effect: hooks behind the UNet's transformers, and its noise schedule on the clone.

Axes: b clips or conditionings of one call, f frames of each, c channels, h height, w width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import ClassVar, Literal, get_args

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete
from torch import Tensor, nn

from ..frame_layout import FrameLayout
from ..motion_module import MOST_TOKENS, MotionModule, MotionModuleConfig, frames_apart, frames_beside
from .base_model import family_of, unet_of
from .call_part import CallPart, ModelOptions
from .effect import Effect
from .frame_cache import CallCache
from .hosted import load_with, on_card_of
from .memory import ACTIVATION_BYTES, SIDES_OF_GUIDANCE
from .noise_schedule import SAMPLING_OBJECT, Schedule, schedule_for
from .versions import most_window_frames

FAMILY = "SD1.5"
GroupNorms = Literal["auto", "per frame", "over frames"]
# Of the finest level's size beside the host's own: the tokens, these as pictures, and the sum.
HELD_TENSORS = 3
# What a transformer's inner layers hold of each channel of a token, at most.
INNER_TENSORS = 16


@dataclass(frozen=True, kw_only=True)
class MotionModuleEffect(Effect):
    """Settings of one Apply Motion Module node; raises ValueError if unusable.

    ``patcher`` is the host's hold on the module, None in training.  ``sites``: the UNet's module behind which each
    temporal transformer acts, by the transformer's name.  ``norms``: the group norms that may go over all frames, of
    the residual blocks and before the last convolution.  ``schedule``: the model sampling that comes with it, None for
    the model's own.
    """

    node: ClassVar[str] = "Apply Motion Module"
    stage: ClassVar[int] = 0
    two_way: ClassVar[bool] = True
    most_strength: ClassVar[float] = math.inf
    module: MotionModule = field(repr=False, compare=False)
    patcher: ModelPatcher | None = field(default=None, repr=False, compare=False)
    sites: dict[str, str] = field(repr=False, hash=False)
    norms: tuple[str, ...] = field(repr=False)
    schedule: ModelSamplingDiscrete | None = field(default=None, repr=False)
    group_norm: GroupNorms = "auto"
    key_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_norm not in get_args(GroupNorms):
            known = ", ".join(get_args(GroupNorms))
            raise ValueError(f"group_norm of {self.node} must be one of {known}; found {self.group_norm!r}.")
        if not math.isfinite(self.key_scale):
            raise ValueError(f"key_scale of {self.node} must be a finite number, found {self.key_scale}.")

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        *,
        motion_module: ModelPatcher,
        noise_schedule: Schedule = "auto",
        **settings: object,
    ) -> "MotionModuleEffect":
        """The effect for this model; ``motion_module`` is a patcher made by ``hosted_motion_module``.

        Raises ValueError when it was made for another UNet, and for settings that cannot work.
        """
        unet, module = unet_of(model), motion_module.model
        if family_of(model) != FAMILY:
            raise ValueError(
                f"{cls.node} works with {FAMILY} models, for which such motion modules were trained, but this model is "
                f"{family_of(model)}. Load an {FAMILY} checkpoint."
            )
        return super().of(
            model,
            module=module,
            patcher=motion_module,
            sites=sites_of(unet, module),
            norms=norms_of(unet),
            schedule=schedule_for(model, noise_schedule, module.config.kind, cls.node),
            **settings,
        )

    @property
    def norms_over_frames(self) -> bool:
        """Whether the image model's norms take all frames together: as in training, unless the node says otherwise."""
        return self.module.config.norms_over_frames if self.group_norm == "auto" else self.group_norm == "over frames"

    @classmethod
    def parts(cls, acting: Sequence[tuple["MotionModuleEffect", FrameLayout]], cache: CallCache) -> list[CallPart]:
        """One after the other; the image model's norms go over frames once.  A single frame has no motion."""
        parts: list[CallPart] = []
        for effect, layout in acting:
            effect.check_seen(max(map(layout.clip_of.count, layout.clip_of)))
            if layout.frames > 1:
                transformers = cache.once(("transformers", id(effect)), effect.module.transformers)
                parts.append(CallPart(hooks=effect.hooks(layout, transformers)))
        over = {
            (effect.norms, clip_length(layout))
            for effect, layout in acting
            if effect.norms_over_frames and layout.frames > 1
        }
        if len(over) > 1:
            raise ValueError(
                f"Two nodes {cls.node} take group norms over clips of {' and '.join(str(x) for _, x in sorted(over))} "
                "frames. Give both the same frames_per_clip, or set group_norm of one to per frame."
            )
        return parts + [norms_over_frames(norms, frames) for norms, frames in over]

    def hooks(self, layout: FrameLayout, transformers: dict[str, nn.Module]) -> dict[str, partial]:
        """Behind each site, its temporal transformer."""
        return {site: partial(self.behind, transformers[name], layout) for name, site in self.sites.items()}

    def behind(
        self, transformer: nn.Module, layout: FrameLayout, module: nn.Module, inputs: tuple[Tensor, ...], x: Tensor
    ) -> Tensor:
        """The hook behind a site, (b f) c h w -> (b f) c h w: adds what the transformer makes of the frames."""
        return transformer(x, layout, self.strength, self.key_scale)

    def on(self, patcher: ModelPatcher) -> "MotionModuleEffect":
        """With the copy of the module on the card of that copy of the model."""
        own = on_card_of(patcher, self.patcher)
        return self if own is None or own.model is self.module else replace(self, module=own.model, patcher=own)

    def attach(self, model: ModelPatcher) -> None:
        """The host loads, offloads and frees the module with the model.  At strength 0 the schedule stays too."""
        load_with(model, self.patcher)
        if self.schedule is not None and self.strength:
            model.add_object_patch(SAMPLING_OBJECT, self.schedule)

    def before_sampling(self, frames: int, model_options: ModelOptions) -> None:
        """No more frames may see each other than the module has positions for."""
        if not self.strength:
            return
        clip, window = self.frames_per_clip or frames, most_window_frames(model_options)
        self.check_seen(clip if window is None or window > frames else min(clip, window), in_windows=window is not None)

    def check_seen(self, frames: int, in_windows: bool = False) -> None:
        """Raises ValueError for more frames than positions."""
        config = self.module.config
        if frames <= config.positions:
            return
        remedy = (
            f"Set context_length of the node Context Windows to less than {config.positions}."
            if in_windows
            else f"Put ComfyUI's node Context Windows (Manual) with context_length 16 behind {self.node}, or make "
            f"clips of at most {config.positions} frames."
        )
        raise ValueError(
            f"{self.node} was given {frames} frames that see each other, but this motion module ({config.kind}) has "
            f"positions for {config.positions}. {remedy}"
        )

    def activation_bytes(self, model: ModelPatcher, frames: int, height: int, width: int) -> int:
        """The widest tensors of the finest level, and the inner layers of as many tokens as go through at once."""
        if not self.strength or frames == 1:
            return 0
        tokens = SIDES_OF_GUIDANCE * frames * height * width
        # Norms over frames have what goes in and what comes out once more, with the skip connection's channels.
        held = HELD_TENSORS + (4 if self.norms_over_frames else 0)
        numbers = tokens * held + min(tokens, MOST_TOKENS) * INNER_TENSORS
        return numbers * unet_of(model).model_channels * ACTIVATION_BYTES


def clip_length(layout: FrameLayout) -> int:
    """How many frames of each clip a call holds.  Raises ValueError where they are not as many of all."""
    lengths = {len(list(frames)) for _, frames in groupby(layout.clip_of)}
    if len(lengths) > 1:
        raise ValueError(
            f"{MotionModuleEffect.node} takes group norms over the frames of a clip, as this motion module was "
            "trained, but a window of Context Windows holds frames of two clips. Sample one clip at a time, set "
            "context_length to the length of a clip (with causal_window_fix off), or set group_norm to per frame."
        )
    return lengths.pop()


def norms_over_frames(norms: Sequence[str], frames: int) -> CallPart:
    """Group norms, by name, take all ``frames`` of a clip together: what goes in and comes out changes its shape."""

    def joined(norm: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """(b f) c h w -> b c (f h) w"""
        return frames_beside(inputs[0], frames)

    def apart(norm: nn.Module, inputs: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """b c (f h) w -> (b f) c h w"""
        return frames_apart(x, frames)

    return CallPart(pre_hooks=dict.fromkeys(norms, joined), hooks=dict.fromkeys(norms, apart))


def norms_of(unet: nn.Module) -> tuple[str, ...]:
    """The two norms of each residual block and the one before the last convolution (SD1.5: 45)."""
    blocks = [name for name, module in unet.named_modules() if isinstance(module, ResBlock)]
    return (*(f"{name}.{layers}.0" for name in blocks for layers in ("in_layers", "out_layers")), "out.0")


def sites_of(unet: nn.Module, module: MotionModule) -> dict[str, str]:
    """The UNet's module behind which each temporal transformer acts, by the transformer's name.

    In each block of the UNet that is the last spatial transformer, or the first residual block where there is none.
    Raises ValueError when the module was made for another UNet.
    """
    sites = {}
    for name, channels in module.places().items():
        block = unet_block(name, module.config)
        site, own = site_in(unet, block)
        if own != channels:
            raise ValueError(
                f"This motion module was made for a UNet with {', '.join(map(str, module.config.widths))} channels at "
                f"its levels, but {block} of this model has {own or 'no such place'}. Use a motion module for SD1.5 "
                "with a model of SD1.5's size."
            )
        sites[name] = site
    return sites


def unet_block(name: str, config: MotionModuleConfig) -> str:
    """The UNet's block, by the host's name, of a temporal transformer, by its own."""
    if name.startswith("mid_block"):
        return "middle_block"
    side, level, _, number = name.split(".")
    if side == "down_blocks":  # behind the first convolution, and each level but the last ends with a smaller picture
        return f"input_blocks.{1 + int(level) * (config.depth + 1) + int(number)}"
    return f"output_blocks.{int(level) * (config.depth + 1) + int(number)}"


def site_in(unet: nn.Module, block: str) -> tuple[str, int]:
    """The name of the module in this block, and its channels; 0 channels where there is none."""
    side, _, number = block.partition(".")
    layers = getattr(unet, side)
    if number:
        layers = layers[int(number)] if int(number) < len(layers) else ()
    transformers = [(i, one.in_channels) for i, one in enumerate(layers) if isinstance(one, SpatialTransformer)]
    blocks = [(i, one.out_channels) for i, one in enumerate(layers) if isinstance(one, ResBlock)]
    found = transformers[-1:] or blocks[:1]
    return (f"{block}.{found[0][0]}", found[0][1]) if found else (block, 0)
