"""One call of the UNet in which the features of every site are seen, and may be changed, whole.

Axes: n rows, c channels, h height, w width, p positions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ..frame_adaptor import apply_change
from ..sites import Site

Options = dict[str, Any]
Change = tuple[Tensor, Tensor]


class SiteCall:
    """``change`` gets what a convolution puts out, or S-Attn, and what T-Attn has added to it.

    Add its hooks and patches after those of a motion, to see what the motion makes.
    """

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self.convolutions = [site.name for site in sites if site.kind == "convolution"]
        self.transformers = {site.block: site.name for site in sites if site.kind == "transformer"}
        self.self_attention: Tensor | None = None

    def change(self, site: str, z: Tensor) -> Change | None:
        """Gain and shift, n c each, for features ``n c ...``: z becomes ``z + gain z + shift``; None leaves it."""
        raise NotImplementedError

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
        """n p c -> n p c.  The block has added the self-attention already, so here its change is added alone."""
        beside, self.self_attention = self.self_attention.to(out), None
        name = self.transformers[(*options["block"], options.get("block_index", 0))]
        changed = self.change(name, rearrange(out + beside, "n p c -> n c p"))
        if changed is None:
            return out
        gain, shift = (rearrange(x, "n c -> n 1 c") for x in changed)
        return apply_change(out, gain, shift, beside=beside)

    def _behind(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def hook(convolution: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor | None:
            changed = self.change(name, z)
            return None if changed is None else apply_change(z, *(rearrange(x, "n c -> n c 1 1") for x in changed))

        return hook
