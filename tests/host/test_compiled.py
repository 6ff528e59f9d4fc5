"""torch.compile on the model, by the host's own node: never what another call has had, and compiled all the same."""

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import set_torch_compile_wrapper
from small_host import Sampler, build_model, trained
from torch import Tensor, nn
from ways import cross_frame, features

from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.binding import with_causal_windows, with_effect
from magicvideo.adaptor_unet.host.call_part import CallPart
from magicvideo.adaptor_unet.host.compiled_call import uncompiled
from magicvideo.adaptor_unet.host.effect import Effect
from magicvideo.adaptor_unet.host.frame_cache import CallCache
from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.initialisation import new_adaptor
from measures import relative

CLOSE = 1e-5
# One level and one transformer, because each layer takes torch time to read.
LEAST = {"channel_mult": (1,), "transformer_depth": [0], "transformer_depth_output": [0, 0], "model_channels": 32}


def as_on_a_card(function: Callable, *args: object, **kwargs: object) -> Tensor:
    """The host's attention on a processor asks for free memory, which torch cannot compile."""
    return attention_pytorch(*args, **kwargs)


def skip_options(guards: list) -> list[bool]:
    """What the host's node skips: it does not look whether a call's options changed."""
    return [("transformer_options" not in guard.name) for guard in guards]


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    made = build_model(**LEAST)
    made.model_options["transformer_options"]["optimized_attention_override"] = as_on_a_card
    return made


@pytest.fixture
def compiled(model: ModelPatcher) -> Iterator[ModelPatcher]:
    torch.compiler.reset()
    made = model.clone()
    set_torch_compile_wrapper(made, backend="eager", options={"guard_filter_fn": skip_options})
    yield made
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()


def moving(model: ModelPatcher, seed: int = 1, **settings: object) -> ModelPatcher:
    """An adaptor of few operations, since each of them takes torch time to read."""
    config = config_for(model, **{"frames": 4, "parts": ("frame", "spatial"), **settings})
    return trained(hosted(new_adaptor(config, "random")), seed=seed)


def graphs() -> int:
    """How many torch has made so far; none of them has a break."""
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


@pytest.mark.slow
@pytest.mark.on_newest  # torch's compiler, not the host, makes the difference
def test_a_compiled_model_gives_what_it_gives_uncompiled_whatever_came_before(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler
) -> None:
    adaptor, other = moving(model), moving(model, seed=5)
    changes = {
        "plain": lambda model: model,
        "strength 1": lambda model: bind(model, adaptor),
        "strength 0.5": lambda model: bind(model, adaptor, strength=0.5),
        "another adaptor": lambda model: bind(model, other),
        "cross-frame attention and AdaIN": lambda model: features(cross_frame(model)),
    }
    both = {name: (change(model), change(compiled)) for name, change in changes.items()}

    def check(name: str, frames: int, made: int) -> Tensor:
        """``made``: how many graphs there are behind it, of which each serves one set of effects and frames."""
        expected, found = (sample(one, frames, steps=3) for one in both[name])
        assert relative(found, expected) <= CLOSE, name
        assert graphs() == made, name
        return found

    check("plain", 4, 1)
    before = check("strength 1", 4, 2)
    check("strength 0.5", 4, 3)
    check("another adaptor", 4, 4)
    check("plain", 4, 4)
    check("strength 1", 2, 5)
    check("cross-frame attention and AdaIN", 4, 6)
    assert relative(check("strength 1", 4, 6), before) == 0
    trained(adaptor, seed=9)
    assert relative(check("strength 1", 4, 6), before) > 100 * CLOSE, "an adaptor that was changed since"
    with torch.no_grad():
        convolution = model.model.diffusion_model.input_blocks[0][0]
        convolution.weight = nn.Parameter(2 * convolution.weight, requires_grad=False)
    check("strength 1", 4, 6)
    check("plain", 4, 6)


@dataclass(frozen=True, kw_only=True)
class Louder(Effect):
    """Nothing but a hook, which torch does not look at."""

    node: ClassVar[str] = "Louder"
    stage: ClassVar[int] = 5
    most_strength: ClassVar[float] = math.inf

    @classmethod
    def parts(cls, acting: Sequence[tuple["Louder", FrameLayout]], cache: CallCache) -> list[CallPart]:
        return [CallPart(hooks={"input_blocks.0.0": effect.louder}) for effect, _ in acting]

    def louder(self, module: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
        return z * (1 + self.strength)


@pytest.mark.slow
@pytest.mark.on_newest
def test_what_is_compiled_for_one_effect_serves_no_other(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler
) -> None:
    plain = [model, compiled]
    louder, loudest = ([with_effect(one, Louder(strength=strength)) for one in plain] for strength in (1.0, 2.0))
    for ways in (plain, louder, loudest, plain, louder):
        expected, found = (sample(one, 2, cfg=1.0) for one in ways)
        assert relative(found, expected) <= CLOSE
    assert graphs() == 3


@pytest.mark.slow
@pytest.mark.on_newest
def test_the_two_sides_of_guidance_may_be_told_different_things_in_calls_of_their_own(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptor = moving(model, parts=("fps",), fps_guidance=True)
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)  # so that each side comes alone
    expected, found = (sample(bind(one, adaptor), 2, steps=3) for one in (model, compiled))
    assert relative(found, expected) <= CLOSE
    assert graphs() == 2


def test_a_call_that_torch_cannot_compile_runs_uncompiled_and_says_why(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    adaptor = moving(model)

    def breaking(n: Tensor, k: Tensor, v: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        torch._dynamo.graph_break()
        return n, k, v

    ways = [bind(one, adaptor) for one in (model, compiled)]
    for way in ways:
        way.set_model_attn1_patch(breaking)
    expected, found = (sample(way, 2, steps=3) for way in ways)
    assert torch.equal(found, expected)
    assert "runs uncompiled here: torch.compile says" in caplog.text


def test_frames_that_come_in_parts_run_uncompiled_and_the_log_says_so(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    adaptor = moving(model)
    expected, found = (sample(with_causal_windows(bind(one, adaptor), 2), 4) for one in (model, compiled))
    assert torch.equal(found, expected) and graphs() == 0
    assert caplog.text.count("runs uncompiled here: frames come in parts") == 1


def test_hooks_of_others_on_the_unet_act_at_every_call(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    """Compiled code would not notice when they change."""
    adaptor, calls = moving(model), []
    handle = model.model.diffusion_model.input_blocks[0][0].register_forward_hook(lambda *given: calls.append(1))
    try:
        expected, found = (sample(bind(one, adaptor), 2, steps=3, cfg=1.0) for one in (model, compiled))
    finally:
        handle.remove()
    assert torch.equal(found, expected) and len(calls) == 2 * 3 and graphs() == 0
    assert "runs uncompiled here: something else has hooks on the UNet" in caplog.text


def test_a_model_on_several_cards_runs_uncompiled(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    """Each card has a thread, and whether compiled code runs is one for all threads."""
    adaptor = moving(model)
    expected, found = (
        with_options(bind(one, adaptor), multigpu_thread_device=torch.device("cpu")) for one in (model, compiled)
    )
    assert torch.equal(sample(found, 2, cfg=1.0), sample(expected, 2, cfg=1.0)) and graphs() == 0
    assert "runs uncompiled here: guidance is split over several cards" in caplog.text


def with_options(model: ModelPatcher, **options: object) -> ModelPatcher:
    """As the host's threads for several cards tell a call its card."""
    model.model_options["transformer_options"] |= options
    return model


def test_threads_that_overlap_all_run_uncompiled_and_leave_the_compiler_as_it_was() -> None:
    runs, first_in, both_in, first_out = [], threading.Event(), threading.Event(), threading.Event()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        runs.append("compiled")
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=backend)
    double(torch.ones(1))  # so that torch's compiler is there
    torch.compiler.reset()
    runs.clear()

    def first() -> None:
        with uncompiled([Louder()]):
            first_in.set()
            both_in.wait(60)
        first_out.set()

    def second() -> None:
        first_in.wait(60)
        with uncompiled([Louder()]):
            both_in.set()
            first_out.wait(60)
            double(torch.ones(2))
            runs.append("end")

    with ThreadPoolExecutor() as threads:
        for one in [threads.submit(first), threads.submit(second)]:
            one.result(60)
    double(torch.ones(2))
    assert runs == ["end", "compiled"]
    torch.compiler.reset()


@pytest.mark.on_newest
def test_after_an_error_nothing_of_the_call_is_held(
    model: ModelPatcher, compiled: ModelPatcher, sample: Sampler
) -> None:
    """An error between self-attention and cross-attention, where features are held for what comes."""
    bound, seen, raises = features(bind(compiled, moving(model))), [], [True]

    def fail(n: Tensor, k: Tensor, v: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        if raises:
            raise torch.OutOfMemoryError("say")
        return n, k, v

    def note(out: Tensor, options: dict) -> Tensor:
        seen.append(weakref.ref(out))
        return out

    bound.set_model_attn1_output_patch(note)
    bound.set_model_attn2_patch(fail)
    with pytest.raises(torch.OutOfMemoryError):
        sample(bound, 2, cfg=1.0)
    gc.collect()
    assert seen and not any(one() is not None for one in seen)
    raises.clear()
    sample(bound, 2, cfg=1.0, steps=1)
