"""What acts during one call of the UNet: hooks on its modules, the host's own patches, and self-attention."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

# The host's dicts: of one call of the UNet; of a model, which hold the former; and what a sampler is called with.
TransformerOptions = dict[str, Any]
ModelOptions = dict[str, Any]
SamplerArguments = dict[str, Any]
# Functions of nodes around a model's guidance, by the host's keys in the options of a model.
GUIDANCE = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
)
Block = tuple[str, int, int]  # a transformer as the host counts it: side of the UNet, block, number in it
PreHook = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class CallPart:
    """What acts during one call of the UNet.  Made for one call and dropped after it; a compiled call keeps its own for
    all calls with the same effects and frames (``compiled_call.py``).

    ``pre_hooks`` act before modules of the UNet, by name, and ``hooks`` behind them.  ``first`` and ``last`` are the
    host's patches, by the host's names, before and behind those of other nodes: around attention, such as
    ``attn1_patch``, and at the time embedding, ``emb_patch``.  ``self_attention`` takes the place of a block's own,
    where no other node has replaced it.
    """

    pre_hooks: dict[str, PreHook] = field(default_factory=dict)
    hooks: dict[str, Hook] = field(default_factory=dict)
    first: dict[str, Callable] = field(default_factory=dict)
    last: dict[str, Callable] = field(default_factory=dict)
    self_attention: dict[Block, Callable] = field(default_factory=dict)

    @contextmanager
    def hooked(self, unet: nn.Module) -> Iterator[None]:
        """The hooks are on the UNet for as long as the context lasts."""
        with ExitStack() as stack:
            for name, pre_hook in self.pre_hooks.items():
                stack.callback(unet.get_submodule(name).register_forward_pre_hook(pre_hook).remove)
            for name, hook in self.hooks.items():
                stack.callback(unet.get_submodule(name).register_forward_hook(hook).remove)
            yield

    def patched(self, transformer_options: TransformerOptions) -> TransformerOptions:
        """The options with the patches added; the caller's dicts and lists stay as they are."""
        patches = dict(transformer_options.get("patches", {}))
        for name, patch in self.first.items():
            patches[name] = [patch, *patches.get(name, [])]
        for name, patch in self.last.items():
            patches[name] = [*patches.get(name, []), patch]
        options = {**transformer_options, "patches": patches}
        if self.self_attention:
            replaced = transformer_options.get("patches_replace", {})
            theirs = replaced.get("attn1", {})
            ours = {block: own for block, own in self.self_attention.items() if not is_replaced(block, theirs)}
            options["patches_replace"] = {**replaced, "attn1": {**theirs, **ours}}
        return options


def block_of(options: TransformerOptions) -> Block:
    """The transformer that a patch is called for: side of the UNet, block, and number in it."""
    return (*options["block"], options.get("block_index", 0))


def is_replaced(block: Block, replaced: dict) -> bool:
    """Whether another node's self-attention stands there: by its transformer, or by its block for all of them."""
    return block in replaced or block[:2] in replaced


class HeldSelfAttention:
    """A block's self-attention output, ``n p c``, held for what is added behind its cross-attention.

    The host adds self-attention to the features before it comes to the text, so a patch behind cross-attention does not
    see it; with the text's output it is what the paper calls S-Attn.
    """

    def __init__(self) -> None:
        self.out: Tensor | None = None

    def hold(self, out: Tensor, options: TransformerOptions) -> Tensor:
        """The host's ``attn1_output_patch``."""
        self.out = out
        return out

    def take(self, like: Tensor) -> Tensor:
        """What was held, in the dtype and on the device of ``like``; once."""
        held, self.out = self.out, None
        return held.to(like)
