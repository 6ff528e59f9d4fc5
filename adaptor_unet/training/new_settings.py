"""Settings of the adaptor that a run begins with."""

from dataclasses import dataclass, fields

from ..adaptor import PARTS
from ..frame_noise import check_shared_noise
from ..initialisation import Init


@dataclass(frozen=True)
class NewAdaptorSettings:
    """``rank`` of the attention (0 for full), ``rotary`` encoding in it, its ``init``, and which ``parts`` there are.

    ``shared_noise``: share of each frame's noise that is the first frame's, in training and whenever it is applied.
    ``start`` names an adaptor file to begin from instead; then the others must be left alone.
    """

    rank: int = 0
    rotary: bool = False
    init: Init = "spatial"
    parts: tuple[str, ...] = PARTS
    shared_noise: float = 0.0
    start: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))  # a list in a TOML file
        if self.init not in ("spatial", "random"):
            raise ValueError(f"init must be spatial or random, found {self.init!r}")
        check_shared_noise(self.shared_noise)
        own = {field.name: field.default for field in fields(self) if field.name != "start"}
        if self.start and any(getattr(self, name) != default for name, default in own.items()):
            raise ValueError(f"start brings its own {', '.join(own)}: leave those out, or leave start out")
