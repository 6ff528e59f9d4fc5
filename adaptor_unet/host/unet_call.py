"""What the adaptors do during one call of the UNet: hooks on its convolutions, patches around its attention.

Made for one call and dropped after it, so nothing of a call can leak into the next one or into another model.
Axes: b runs, f frames of a run, p positions, c channels, h height, w width; n = b f rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..frame_adaptor import apply_change
from ..frame_layout import FrameLayout
from ..temporal_attention import PastFrames
from .frame_cache import Past, no_past
from .motion import Motion

Options = dict[str, Any]


class UnetCall:
    """``motions`` with their layouts; several add up at each site.  ``past`` holds the frames before a chunk."""

    def __init__(self, motions: list[tuple[Motion, FrameLayout]], past: Past = no_past) -> None:
        self.motions = motions
        self.past = past
        self.sites = motions[0][0].adaptor.config
        self.transformers = {site.block: site.name for site in self.sites.transformers}
        self.rows = [layout.adaptor_rows(motion.adaptor.config.frames) for motion, layout in motions]
        self.held: dict[str, Tensor] = {}

    @contextmanager
    def hooks(self, unet: nn.Module) -> Iterator[None]:
        """``z <- S z + B`` behind every convolution of the adaptors, for as long as the context lasts."""
        handles = []
        try:
            for name in [site.name for site in self.sites.convolutions if self._have("frame")]:
                handles.append(unet.get_submodule(name).register_forward_hook(self._scaling(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def patched(self, transformer_options: Options) -> Options:
        """The options with our patches added; the caller's dicts and lists stay as they are.

        First before self-attention, to see the block's own normalised input; last behind it, to add to what comes out.
        """
        patches = dict(transformer_options.get("patches", {}))
        patches["emb_patch"] = [*patches.get("emb_patch", []), self.add_fps]
        patches["attn1_patch"] = [self.before_attention, *patches.get("attn1_patch", [])]
        patches["attn1_output_patch"] = [*patches.get("attn1_output_patch", []), self.behind_self_attention]
        patches["attn2_output_patch"] = [*patches.get("attn2_output_patch", []), self.behind_cross_attention]
        return {**transformer_options, "patches": patches}

    def add_fps(self, embedding: Tensor, model_channels: int, transformer_options: Options) -> Tensor:
        """n c -> n c"""
        for motion, layout in self.motions:
            if motion.adaptor.fps is not None:
                added = motion.strength * motion.adaptor.fps(torch.tensor(motion.rates).to(embedding))
                if len(added) > 1:
                    added = repeat(added, "b c -> (b f) c", f=layout.frames)
                embedding = embedding + added
        return embedding

    def before_attention(self, z: Tensor, k: Tensor, v: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        """Keeps the normalised input z, ``n p c``, which temporal attention reads too."""
        self.held["input"] = z
        return z, k, v

    def behind_self_attention(self, out: Tensor, options: Options) -> Tensor:
        """Keeps the self-attention's output, ``n p c``: with the text's, it is what the paper calls S-Attn."""
        self.held["self_attention"] = out
        return out

    def behind_cross_attention(self, out: Tensor, options: Options) -> Tensor:
        """n p c -> n p c: ``S' S-Attn(z) + B' + T-Attn(z)``, where S-Attn = self_attention + out.

        The block has added self_attention already, so here it is added ``(S' - 1)`` times.
        """
        z, self_attention = self.held.pop("input"), self.held.pop("self_attention")
        name = self.transformers[(*options["block"], options.get("block_index", 0))]
        if self._have("spatial"):
            gain, shift = (rearrange(x, "n c -> n 1 c") for x in self._change("spatial", name))
            out = apply_change(out, gain, shift, beside=self_attention.to(out))
        for number, (motion, layout) in enumerate(self.motions):
            if "temporal" in motion.adaptor.config.parts:
                past = self.past(("motion", number), name, layout.clip_of[0], PastFrames)
                out = torch.add(out, motion.adaptor.temporal[name](z, layout, past), alpha=motion.strength)
        return out

    def _have(self, part: str) -> bool:
        return any(part in motion.adaptor.config.parts for motion, _ in self.motions)

    def _change(self, part: str, name: str) -> tuple[Tensor, Tensor]:
        """Sum over the motions of ``s (S - 1)`` and ``s B`` at a site, ``n c`` each."""
        changes = [
            getattr(motion.adaptor, part)[name].change(rows, motion.strength)
            for (motion, _), rows in zip(self.motions, self.rows, strict=True)
            if part in motion.adaptor.config.parts
        ]
        gains, shifts = zip(*changes, strict=True)
        return sum(gains), sum(shifts)

    def _scaling(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(convolution: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
            gain, shift = (rearrange(x, "n c -> n c 1 1") for x in self._change("frame", name))
            return apply_change(z, gain, shift)

        return hook
