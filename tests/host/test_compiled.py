"""torch.compile on the model, by the host's own node: never what another call has had."""

import copy
from collections.abc import Callable

import pytest
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import set_torch_compile_wrapper
from small_host import Sampler, trained
from ways import cross_frame, features

from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

CLOSE = 1e-5


def skip_options(guards: list) -> list[bool]:
    """What the host's node skips: it does not look whether a call's options changed."""
    return [("transformer_options" not in guard.name) for guard in guards]


@pytest.fixture
def compiled(model: ModelPatcher) -> ModelPatcher:
    made = model.clone()
    set_torch_compile_wrapper(made, backend="eager", options={"guard_filter_fn": skip_options})
    return made


@pytest.fixture
def changes(adaptor: ModelPatcher) -> list[tuple[str, Callable[[ModelPatcher], ModelPatcher], int]]:
    """Name, what nodes make of a model, and how many frames."""
    other = trained(hosted(copy.deepcopy(adaptor.model)), seed=5)
    return [
        ("plain", lambda model: model, 4),
        ("strength 1", lambda model: bind(model, adaptor), 4),
        ("strength 0.5", lambda model: bind(model, adaptor, strength=0.5), 4),
        ("another adaptor", lambda model: bind(model, other), 4),
        ("two frames", lambda model: bind(model, adaptor), 2),
        ("cross-frame attention and AdaIN", lambda model: features(cross_frame(model)), 4),
        ("plain again", lambda model: model, 4),
        ("strength 1 again", lambda model: bind(model, adaptor), 4),
    ]


@pytest.mark.slow
@pytest.mark.on_newest  # torch's compiler, not the host, makes the difference
def test_a_compiled_model_gives_what_it_gives_uncompiled_whatever_came_before(
    model: ModelPatcher, compiled: ModelPatcher, changes: list, sample: Sampler
) -> None:
    for name, change, frames in changes:
        expected = sample(change(model), frames)
        assert relative(sample(change(compiled), frames), expected) <= CLOSE, name


def test_a_compiled_model_says_that_it_runs_uncompiled(
    compiled: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    sample(bind(compiled, adaptor), 2, steps=1)
    assert "runs uncompiled" in caplog.text
