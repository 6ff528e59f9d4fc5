"""Text attention over the few tokens that carry something, exactly as over all 77 of them.

All tokens but the known words are zero vectors. Their keys and values are zero, so each adds exp(0) to the softmax's
denominator and nothing to its numerator: together they are one more key, zero, with the logarithm of their number added
to its score. In training this saves most of the work of the text's keys and values.

Axes: b pictures, p positions, t tokens, h heads, d channels of a head.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from magicvideo.demo.model.sizes import TEXT_POSITIONS

Attention = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


def with_zero_tokens(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
    """b p (h d), b t (h d), b t (h d) -> b p (h d): a ``patches_replace`` of ComfyUI for ``attn2``.

    Raises ValueError for more tokens than a prompt has.
    """
    tokens = k.shape[1]
    if tokens >= TEXT_POSITIONS:
        raise ValueError(f"fewer than {TEXT_POSITIONS} tokens expected, found {tokens}")
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=options["n_heads"]) for x in (q, k, v))
    k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
    bias = torch.zeros(1, 1, 1, tokens + 1, dtype=q.dtype, device=q.device)
    bias[..., -1] = math.log(TEXT_POSITIONS - tokens)
    seen = scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return rearrange(seen, "b h n d -> b n (h d)")


def few_token_options(unet: torch.nn.Module) -> dict[str, Any]:
    """The ``transformer_options`` with which a call of the image network reads few tokens instead of 77."""
    sides = {"input": unet.input_blocks, "output": unet.output_blocks}
    blocks = [(side, number) for side, rows in sides.items() for number in range(len(rows))]
    return {"patches_replace": {"attn2": dict.fromkeys([*blocks, ("middle", 0)], with_zero_tokens)}}
