"""Motion modules under the names of the diffusers library; no host."""

from torch import Tensor


def as_diffusers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in the layout of diffusers' MotionAdapter, which has one position encoding a place."""
    renamed = {}
    for name, tensor in tensors.items():
        for theirs, ours in (
            (".temporal_transformer.", "."),
            ("attention_blocks.0.pos_encoder.", "pos_embed."),
            ("attention_blocks.0.", "attn1."),
            ("attention_blocks.1.", "attn2."),
            (".norms.0.", ".norm1."),
            (".norms.1.", ".norm2."),
            (".ff_norm.", ".norm3."),
        ):
            name = name.replace(theirs, ours)
        if ".attn2.pos_encoder" not in name:
            renamed[name] = tensor
    return renamed
