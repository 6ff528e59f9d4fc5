"""``torch.compile`` on a model: each set of effects has a compiled call of its own, which serves no other.

Compiled code does not look whether modules have hooks, nor, as the host's node sets it, at a call's options: the host's
compiled UNet would give what another call has had.  So it runs as it stands while effects act, and around it stands a
function that is compiled with these effects for these frames.  It has code of its own, where torch keeps what it has
compiled, and is one graph without breaks, so that nothing of it is left where others' calls could find it.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor, nn

from .call_part import CallPart, TransformerOptions
from .effect import Effect
from .frame_cache import FRAMES_KEY, MADE_ONCE_KEY, CallCache, MadeOnce
from .unet_call import COMPILED_KEY, Acting, parts_of
from .versions import CARD_OF_CALL

logger = logging.getLogger(__name__)

Call = Callable[..., Tensor]
CompileSettings = dict[str, Any]  # the host's for ``torch.compile``


class CompiledCalls:
    """The compiled calls of one binding, whose ``effects`` they are for; made as they are asked for."""

    def __init__(self, effects: Sequence[Effect]) -> None:
        self.effects = effects
        self.calls: dict[Hashable, CompiledCall] = {}
        self.told: set[str] = set()

    def of_call(
        self, acting: Sequence[Acting], options: TransformerOptions, unet: nn.Module
    ) -> tuple[Sequence[CallPart], Call] | None:
        """What acts in a call of a compiled UNet, and the function to call with the executor and its arguments.

        None where the call must run uncompiled, which the log says once.
        """
        key = tuple((id(effect), layout) for effect, layout in acting)
        why_not = self.why_not(acting, options, unet) or (self.calls[key].why_not if key in self.calls else "")
        if why_not:
            self.tell(f"The model is compiled, but runs uncompiled here: {why_not}.")
            return None
        if key not in self.calls:
            self.tell("The model is compiled, so what acts on it is compiled with it: the second step takes a while.")
            self.calls[key] = CompiledCall(acting, options[COMPILED_KEY])
        return self.calls[key].parts, partial(self.run, key)

    def run(self, key: Hashable, executor: WrapperExecutor, *args: object, **kwargs: object) -> Tensor:
        """A compiled call.  One that ends with an error is dropped with all that its parts hold, such as features."""
        call = self.calls.pop(key)
        out = call(executor, *args, **kwargs)
        self.calls[key] = call
        return out

    def why_not(self, acting: Sequence[Acting], options: TransformerOptions, unet: nn.Module) -> str:
        """Why a call cannot be compiled, in words; empty where it can."""
        if FRAMES_KEY in options or "context_window" in options:
            return "frames come in parts, and each part would be compiled for itself"
        if CARD_OF_CALL in options:  # torch's stance, which is one for all threads, must stay as it is
            return "guidance is split over several cards"
        if not {id(effect) for effect, _ in acting} <= set(map(id, self.effects)):
            return "the copy of the model on another card is not compiled with effects"
        if any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules()):
            return "something else has hooks on the UNet, which compiled code does not look at"
        return "" if MADE_ONCE_KEY in options else "it is not being sampled"

    def tell(self, words: str) -> None:
        """Logs it, once."""
        if words not in self.told:
            self.told.add(words)
            logger.warning(words)


class CompiledCall:
    """A call of the UNet with the hooks and patches of these effects, compiled at the second step of a sampling.

    The parts are the same at every call.  What they make once a sampling is made at the first step, uncompiled; from
    then on it goes into the compiled code as tensors like any other.  ``why_not`` says why it could not be compiled.
    """

    def __init__(self, acting: Sequence[Acting], settings: CompileSettings) -> None:
        self.made_once, self.why_not = MadeOnce(), ""
        self.parts = parts_of(acting, CallCache(made_once=self.made_once))
        self.run = torch.compile(FunctionType(run.__code__.replace(), globals()), **own_settings(settings))

    def __call__(self, executor: WrapperExecutor, *args: object, **kwargs: object) -> Tensor:
        """Calls the UNet with the executor's arguments, and gives its result.

        At the first step of a sampling it runs as it stands, and so does a call that torch cannot compile.
        """
        once: MadeOnce = args[-1][MADE_ONCE_KEY]
        if not once.holds(self.made_once):
            once.add(self.made_once)
            self.made_once.clear()
            return executor(*args, **kwargs)
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # which takes seconds

        try:
            with torch.compiler.set_stance("default"), warnings.catch_warnings():
                # Functions that give the same tensors for the same frames may be kept or made anew.
                warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
                return self.run(executor, args, kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            self.why_not = f"torch.compile says: {str(error).strip().splitlines()[0]}"
            return executor(*args, **kwargs)


def run(executor: WrapperExecutor, args: tuple, kwargs: dict[str, object]) -> Tensor:
    """What is compiled; each compiled call has a copy of this code."""
    return executor(*args, **kwargs)


def own_settings(settings: CompileSettings) -> CompileSettings:
    """The host's settings for ``torch.compile``, with all that a call depends on looked at, and in one graph."""
    options = {name: x for name, x in (settings.get("options") or {}).items() if name != "guard_filter_fn"}
    return settings | {"options": options or None, "fullgraph": True}


class EagerStance:
    """Where nothing compiled runs, in whichever threads: torch's stance is one for the process.

    The first thread that comes in sets it, and the last that leaves restores it: the host has a thread for each card.
    """

    def __init__(self) -> None:
        self.lock, self.stance = threading.Lock(), ExitStack()
        self.inside = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing compiled runs in this process for as long as the context lasts."""
        with self.lock:
            if self.inside == 0:
                self.stance.enter_context(torch.compiler.set_stance("force_eager"))
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if self.inside == 0:
                    self.stance.close()


eager = EagerStance()


@contextmanager
def uncompiled(effects: Sequence[Effect]) -> Iterator[None]:
    """Where any of the effects act, the host's UNet runs as it stands, although ``torch.compile`` was set on the model.

    Nothing is compiled before torch's compiler was imported, which takes seconds.
    """
    if "torch._dynamo" not in sys.modules or not any(effect.strength for effect in effects):
        yield
        return
    with eager.held():
        yield
