"""Settings of the adaptor that a run begins with."""

from dataclasses import dataclass

from ..adaptor import PARTS
from ..initialisation import Init


@dataclass(frozen=True)
class NewAdaptorSettings:
    """``rank`` of the attention (0 for full), ``rotary`` encoding in it, its ``init``, and which ``parts`` there are.

    ``start`` names an adaptor file to begin from instead; then the others must be left alone.
    """

    rank: int = 0
    rotary: bool = False
    init: Init = "spatial"
    parts: tuple[str, ...] = PARTS
    start: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))  # a list in a TOML file
        if self.init not in ("spatial", "random"):
            raise ValueError(f"init must be spatial or random, found {self.init!r}")
        plain = NewAdaptorSettings.__dataclass_fields__
        if self.start and any(getattr(self, n) != plain[n].default for n in ("rank", "rotary", "init", "parts")):
            raise ValueError("start brings its own rank, rotary, init and parts: leave those out, or leave start out")
