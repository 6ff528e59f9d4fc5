"""In which order the frames of a clip are sampled, as an effect asks for it."""

import math
from dataclasses import dataclass

from ..adaptor import CONTEXT_NOISE

# Under this much noise nothing of a frame is left to see.
MOST_HISTORY_NOISE = 20.0


@dataclass(frozen=True)
class SamplingOrder:
    """How a clip is sampled one chunk of frames after the other.

    ``chunk``: frames of each clip that are sampled together.  ``context_noise``: sigma at which finished frames are
    shown.  ``later_cfg``: guidance of frames that have finished ones before them; 0 for the sampler's own.
    ``history_noise``: sigma at which the negative side is shown finished frames, so that guidance leads to what follows
    from them (history guidance, Song et al. 2025); 0 for context_noise.
    """

    chunk: int = 1
    context_noise: float = CONTEXT_NOISE
    later_cfg: float = 0.0
    history_noise: float = 0.0

    def check(self, node: str) -> None:
        """Raises ValueError for settings of the node of that name that cannot work."""
        if self.chunk < 1:
            raise ValueError(f"chunk of {node} must be 1 or more, found {self.chunk}.")
        if not (math.isfinite(self.later_cfg) and self.later_cfg >= 0):
            raise ValueError(f"later_cfg of {node} must be 0 or more, found {self.later_cfg}.")
        if not 0 <= self.history_noise <= MOST_HISTORY_NOISE:
            most, found = MOST_HISTORY_NOISE, self.history_noise
            raise ValueError(f"history_noise of {node} must lie in 0 to {most:g}, found {found}.")
