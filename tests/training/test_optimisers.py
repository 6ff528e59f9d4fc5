"""AdamW with its moments in 8 bits: refused with a sentence where it cannot work, and gone on from bit for bit."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from toy import Told, toy_run

from magicvideo.adaptor_unet.training.optimisers import check_optimiser, made_optimiser
from magicvideo.adaptor_unet.training.run_state import RunState, StateError
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.trainables import MovingAverage

CPU = torch.device("cpu")
# Of one so many values are kept in 8 bits, of the other in 32.
SHAPES = {"large": (80, 64), "small": (3,)}
QUICK = {"steps": 4, "validate_every": 0, "sample_every": 0}


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ImportError, match="adamw_8bit needs bitsandbytes: run `pip install bitsandbytes` .* adamw"):
        check_optimiser("adamw_8bit", CPU)
    check_optimiser("adamw", CPU)


def test_a_library_that_does_not_know_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class ForCards(torch.optim.SGD):
        def __init__(self, groups: list, min_8bit_size: int) -> None:
            super().__init__(groups)

        def step(self) -> None:
            raise RuntimeError("all tensors need to be on a card")

    for name in ("bitsandbytes", "bitsandbytes.optim"):
        module = ModuleType(name)
        module.AdamW8bit = ForCards
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(ValueError, match=r"does not work on cpu .*\(all tensors need to be on a card\).*or take"):
        check_optimiser("adamw_8bit", CPU)


def run_of(kind: str) -> tuple[RunState, Callable[[], None]]:
    """Parameters with their optimiser, and what makes a step of them, whose gradients follow from its number."""
    generator = torch.Generator().manual_seed(0)
    parameters = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}
    optimiser = made_optimiser(kind, [{"params": [*parameters.values()], "lr": 1e-2, "weight_decay": 0.01}])
    run = RunState(parameters, MovingAverage(parameters, 0.9), optimiser, {"optimiser": kind})

    def step() -> None:
        generator = torch.Generator().manual_seed(run.step)
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()
        run.averages.update(run.step)
        run.step += 1

    return run, step


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_saved_and_resumed_it_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    if kind == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    whole, step = run_of(kind)
    for _ in range(3):
        step()
    path = whole.save(tmp_path, 2)
    kept = load_file(path)
    eighth = kind == "adamw_8bit"
    assert (kept.get("optimiser.large.state1", torch.empty(0)).dtype is torch.uint8) == eighth
    resumed, resumed_step = run_of(kind)
    resumed.load(path)
    for _ in range(2):
        step()
        resumed_step()
    for name, parameter in whole.parameters.items():
        assert torch.equal(parameter, resumed.parameters[name])
    one, other = (load_file(run.save(tmp_path / name, 2)) for name, run in (("a", whole), ("b", resumed)))
    assert one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())


def in_8_bits() -> RunState:
    """As the library keeps it, made by hand."""
    weight = nn.Parameter(torch.ones(SHAPES["large"]))
    optimiser = torch.optim.SGD([weight])
    blocks, state = weight.numel() // 256, {"step": 3}
    for place in (1, 2):
        state |= {f"state{place}": torch.full(weight.shape, place, dtype=torch.uint8)}
        state |= {f"absmax{place}": torch.ones(blocks), f"qmap{place}": torch.linspace(-1, 1, 256)}
    optimiser.state[weight] = state
    return RunState({"w": weight}, MovingAverage({"w": weight}, 0.9), optimiser, {"optimiser": "adamw_8bit"}, 3)


DAMAGED = {
    "a moment missing": {"state1": None},
    "a moment in 32 bits": {"state2": torch.ones(SHAPES["large"])},
    "a moment misshapen": {"state2": torch.ones(7, dtype=torch.uint8)},
    "scales missing": {"absmax1": None},
    "scales not finite": {"absmax2": torch.full((20,), torch.inf)},
    "a table misshapen": {"qmap1": torch.ones(255)},
    "no step": {"step": None},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_state_in_8_bits_is_named_and_changes_nothing(name: str, tmp_path: Path) -> None:
    run = in_8_bits()
    path = run.save(tmp_path, 2)
    run.load(path)
    changed: dict[str, Tensor | None] = {f"optimiser.w.{key}": x for key, x in DAMAGED[name].items()}
    written = {key: x for key, x in (load_file(path) | changed).items() if x is not None}
    save_file(written, path, {"step": "3", "identity": '{"optimiser": "adamw_8bit"}'})
    before = dict(run.optimiser.state[run.parameters["w"]])
    with pytest.raises(StateError, match="is damaged .the optimiser's"):
        run.load(path)
    assert all(run.optimiser.state[run.parameters["w"]][key] is x for key, x in before.items())


def test_a_run_is_gone_on_from_with_its_own_optimiser_alone(tmp_path: Path) -> None:
    run = toy_run(TrainingSettings(**QUICK), tmp_path, Told(stop_at=2))
    run.train()
    other = toy_run(TrainingSettings(**QUICK), tmp_path)
    other.state.run_identity["optimiser"] = "adamw_8bit"
    with pytest.raises(StateError, match="with optimiser 'adamw', this one has 'adamw_8bit'"):
        other.resume()


def test_a_state_of_an_earlier_version_which_had_no_choice_is_one_of_adamw(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = toy_run(TrainingSettings(**QUICK), tmp_path, Told(stop_at=2))
    del run.state.run_identity["optimiser"]
    run.train()
    other = toy_run(TrainingSettings(**QUICK), tmp_path)
    other.state.run_identity["optimiser"] = "adamw_8bit"
    with pytest.raises(StateError, match="with optimiser 'adamw'"):
        other.resume()
    assert toy_run(TrainingSettings(**QUICK), tmp_path).resume() and "optimiser" not in caplog.text
