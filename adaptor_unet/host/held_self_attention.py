"""A block's self-attention, held until its cross-attention is there too: with it, what the paper calls S-Attn."""

from torch import Tensor

from .call_part import Options


class HeldSelfAttention:
    """A block's self-attention output, ``n p c``, held for what is added behind its cross-attention.

    The host adds self-attention to the features before it comes to the text, so a patch behind cross-attention does not
    see it; with the text's output it is what the paper calls S-Attn.
    """

    def __init__(self) -> None:
        self.out: Tensor | None = None

    def hold(self, out: Tensor, options: Options) -> Tensor:
        """The host's ``attn1_output_patch``."""
        self.out = out
        return out

    def take(self, like: Tensor) -> Tensor:
        """What was held, in the dtype and on the device of ``like``; once."""
        held, self.out = self.out, None
        return held.to(like)
