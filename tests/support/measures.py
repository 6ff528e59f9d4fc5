"""How far two results lie apart."""

from torch import Tensor


def relative(x: Tensor, y: Tensor) -> float:
    """Largest difference against the largest value of ``y``."""
    return float((x - y).abs().max() / y.abs().max())
