"""S and B of an adaptor in closed form, from a reference clip seen at several noise levels.

Axes: l noise levels, f frames, c channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .adaptor import AdaptorConfig, VideoAdaptor

Change = tuple[Tensor, Tensor]  # S - 1 and B of one site, f c each


def shrunk_mean(changes: Tensor) -> Tensor:
    """l f c -> f c: ``m w``, m the mean over the levels, ``w = m^2 / (m^2 + var / l)``.

    var / l is the variance of m as the scatter over the levels tells it, so w is the Wiener weight of a change against
    its uncertainty: what is alike at all levels stays, what changes its sign is dropped, and nothing is to be set.
    """
    mean, uncertainty = changes.mean(0), changes.var(0) / len(changes)
    weight = mean**2 / (mean**2 + uncertainty)
    return mean * torch.nan_to_num(weight, nan=0.0)  # 0 / 0: no change at any level


def check_calibrated(config: AdaptorConfig, given: int) -> None:
    """Raises ValueError for an adaptor without S and B, or of more frames than the ``given`` ones of a clip."""
    if not {"frame", "spatial"} & set(config.parts):
        raise ValueError("This adaptor has no S and B to be calibrated. Leave it out to get a new one that has.")
    if given < config.frames:
        raise ValueError(
            f"The adaptor has {config.frames} frames, but the reference clip only {given}. Use a clip of "
            f"{config.frames} frames or more, or an adaptor of {given}."
        )


@torch.no_grad()
def calibrate(adaptor: VideoAdaptor, levels: dict[str, Sequence[Change]]) -> None:
    """Sets S and B of every site of the adaptor, which ``check_calibrated`` has passed; the rest of it stays.

    ``levels`` has, by the site's name, S - 1 and B as they were found there at each noise level.  A clip longer than
    the adaptor gives its first frames.
    """
    config = adaptor.config
    for part, sites in (("frame", config.convolutions), ("spatial", config.transformers)):
        for name in [site.name for site in sites] if part in config.parts else ():
            scale_delta, shift = (shrunk_mean(torch.stack(x)) for x in zip(*levels[name], strict=True))
            pair = getattr(adaptor, part)[name]
            pair.scale.copy_(1 + scale_delta[: config.frames])
            pair.shift.copy_(shift[: config.frames])
