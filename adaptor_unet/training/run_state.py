"""The state of a run on disk: enough to go on as if it had never stopped.

All chance of a step follows from seed and step (``step_plan.py``), so a state is the step's number and tensors: the
trained ones, their averages and the optimiser's.
"""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..adaptor import AdaptorConfig
from ..whole_file import check_content, content_name, removed, save_tensors
from .data.cache_files import hash_of
from .optimisers import check_finite, check_kept, kept_of, put_back
from .trainables import MovingAverage

logger = logging.getLogger(__name__)

NAME = re.compile(r"step-(\d+)\.state")

# What earlier versions did not note; their states have to be gone on from all the same.
ADDED_LATER = ("clip_contents", "held_out", "start", "init")
# What they had no choice of.
WITHOUT_CHOICE = {"optimiser": "adamw"}
OTHER_CLIPS = "clips, captions, text encoder or settings of clips, such as another width"
# What differs, where the two values would tell nobody anything.
IN_WORDS = {"clip_contents": f"other {OTHER_CLIPS}", "held_out": f"other held-out {OTHER_CLIPS}"}


class StateError(ValueError):
    """A state that cannot be gone on from: names the file, what was found and what to do."""


@dataclass
class RunState:
    """What changes while a run goes on, and which run it is.

    ``step`` counts the finished steps.  ``run_identity`` is what a resumed run must share with the one before; it
    stands in the file's metadata as ``identity``.  ``name`` is that of the run in the files that it makes: it follows
    from the identity with which the run began, and is empty for states of versions that gave none.
    """

    parameters: dict[str, torch.nn.Parameter]
    averages: MovingAverage
    optimiser: torch.optim.Optimizer
    run_identity: dict[str, Any]
    step: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or hash_of(json.dumps(self.run_identity, sort_keys=True))

    def save(self, folder: Path, keep: int) -> Path:
        """Writes ``step-N.state`` whole or not at all, then drops all but the last ``keep`` up to that step.

        States of later steps, which were damaged or could not be read when the run went on, are dropped too.
        """
        path = folder / f"step-{self.step:08}.state"
        tensors = self._tensors()
        metadata = {"step": str(self.step), "identity": json.dumps(self.run_identity), "run": self.name}
        save_tensors(path, tensors, metadata | {"content": content_name(sorted(tensors.items()))})
        found = states(folder)
        last = found.index(path) + 1
        for left in (*found[: max(0, last - keep)], *found[last:]):
            removed(left)
        return path

    def load(self, path: Path) -> None:
        """Goes on from a state.  Raises StateError when it is damaged or of another run; then nothing has changed."""
        try:
            found, step, run, tensors = read_state(path)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise damaged(path, error) from error
        check_identity(path, found, self.run_identity)
        missing = [name for name in self.parameters if f"trained.{name}" not in tensors]
        if missing:
            raise StateError(f"{path} lacks {missing[0]}. Begin a new run, with another output.")
        kept = kept_by_name(tensors)
        try:
            for name, parameter in self.parameters.items():
                check_tensors(name, parameter.shape, tensors)
                check_kept(self.optimiser, name, parameter.shape, kept.get(name, {}))
        except ValueError as error:
            raise damaged(path, error) from error
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"trained.{name}"])
                self.averages.values[name].copy_(tensors[f"average.{name}"])
        self.optimiser.state.clear()
        for name, parameter in self.parameters.items():
            if name in kept:
                put_back(self.optimiser, parameter, kept[name])
        self.step, self.name = step, run

    def _tensors(self) -> dict[str, Tensor]:
        found = {}
        for name, parameter in self.parameters.items():
            found[f"trained.{name}"] = parameter
            found[f"average.{name}"] = self.averages.values[name]
            for key, value in kept_of(self.optimiser, parameter).items():
                found[f"optimiser.{name}.{key}"] = value
        return found


def check_identity(path: Path, found: dict[str, Any], run_identity: dict[str, Any]) -> None:
    """Raises StateError when a state is of a run with another identity."""
    found = WITHOUT_CHOICE | found
    for name, value in run_identity.items():
        if name in ADDED_LATER and name not in found:
            logger.warning("%s is of an earlier version, which did not note %s: not compared.", path.name, name)
        elif found.get(name) != value and not (name == "adaptor" and is_the_same_adaptor(found.get(name), value)):
            raise StateError(
                f"{path} belongs to a run with {difference(name, found.get(name), value)}. "
                "Set it back, or begin a new run with another output."
            )


def is_the_same_adaptor(found: object, wanted: str) -> bool:
    """Whether two adaptors' settings as JSON say the same: of an earlier version some may be missing."""
    try:
        return AdaptorConfig.from_json(str(found)) == AdaptorConfig.from_json(wanted)
    except (TypeError, ValueError, RecursionError):
        return False


def read_state(path: Path) -> tuple[dict[str, Any], int, str, dict[str, Tensor]]:
    """Identity, step, the run's name and tensors of a state file.

    Raises ValueError or what the readers raise for a damaged one.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        identity, step = read_told(path, metadata)
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        check_content(metadata.get("content"), tensors)
        return identity, step, metadata.get("run", ""), tensors


def read_told(path: Path, metadata: dict[str, str]) -> tuple[dict[str, Any], int]:
    """Identity and step, as a state's metadata say them.  Raises ValueError for a damaged one."""
    identity = json.loads(metadata.get("identity", "{}"))
    step = int(metadata.get("step", "-1"))
    if not isinstance(identity, dict):
        raise ValueError("it does not say of which run it is")
    named = NAME.fullmatch(path.name)
    if step < 0 or (named and int(named[1]) != step):
        raise ValueError(f"it says that it is of step {step}"[:80])
    return identity, step


def last_step(folder: Path, run_identity: dict[str, Any]) -> int | None:
    """The step of the last state of a run, of which no tensor is read; None when there is none, or it is damaged.

    Raises StateError when it is of a run with another identity.
    """
    for path in states(folder)[-1:]:
        try:
            with safe_open(path, framework="pt") as file:
                identity, step = read_told(path, file.metadata() or {})
        except (SafetensorError, OSError, ValueError, RecursionError):
            return None
        check_identity(path, identity, run_identity)
        return step
    return None


def check_tensors(name: str, shape: torch.Size, tensors: dict[str, Tensor]) -> None:
    """Raises ValueError unless the weights that a state holds of one parameter are there, of its shape and finite."""
    for kind in ("trained", "average"):
        check_finite(f"{kind} {name}", tensors.get(f"{kind}.{name}"), shape)


def kept_by_name(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What a state holds of the optimiser: for each parameter, tensors by the optimiser's own names."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, place = key.partition(".")
        if kind == "optimiser":
            name, _, part = place.rpartition(".")
            found.setdefault(name, {})[part] = tensor
    return found


def damaged(path: Path, error: Exception) -> StateError:
    """The error for a damaged state, to be raised from ``error``, which tells it from a sound one of another run."""
    return StateError(f"{path} is damaged ({error}). Delete it to go on from the one before.")


def difference(name: str, found: Any, wanted: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """How two values of an identity differ, in words; of settings written as JSON, the ones that do."""
    if name in IN_WORDS:
        return IN_WORDS[name]
    try:
        old, new = json.loads(found), json.loads(wanted)
        if isinstance(old, dict) and isinstance(new, dict):
            inside = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            told = [f"{key} {old.get(key)!r:.60}, this one has {new.get(key)!r:.60}" for key in inside]
            return f"{name} of {'; '.join(told)}"
    except (TypeError, ValueError, RecursionError):
        pass
    return f"{name} {found!r:.80}, this one has {wanted!r:.80}"


def states(folder: Path) -> list[Path]:
    """State files of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*.state") if NAME.fullmatch(path.name))


def go_on(state: RunState, folder: Path) -> bool:
    """Loads the last sound state, if there is one; a damaged one is named in the log and passed over."""
    for path in reversed(states(folder)):
        try:
            state.load(path)
        except StateError as error:
            if error.__cause__ is None:  # sound, but of another run
                raise
            logger.warning("%s", error)
            continue
        logger.info("going on from %s", path.name)
        return True
    return False
