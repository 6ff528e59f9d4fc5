"""A text encoder that hands on a vector for each token and nothing else, in CLIP-L's layout."""

import torch
from torch import Tensor

from compact_checkpoint import TEXT, Shapes, checkpoint_shapes

TOKEN_VECTORS = f"{TEXT}embeddings.token_embedding.weight"


def text_encoder_weights(token_vectors: Tensor) -> dict[str, Tensor]:
    """All weights of the text encoder for one vector a token, `[tokens, channels]`.

    Attention and MLP add nothing and positions are zero, so each layer hands its input on unchanged. What the image
    network sees of a token is its vector, layer-normalised.
    """
    shapes: Shapes = {name: shape for name, shape in checkpoint_shapes().items() if name.startswith(TEXT)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name in weights:
        if "norm" in name and name.endswith(".weight"):
            weights[name] += 1
    weights[TOKEN_VECTORS] = token_vectors
    return weights
