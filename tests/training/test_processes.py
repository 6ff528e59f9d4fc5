"""Several processes train the adaptor that one trains."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from toy import toy_run

from magicvideo.adaptor_unet.training.processes import accelerator, add_up
from magicvideo.adaptor_unet.training.run_state import states
from magicvideo.adaptor_unet.training.settings import TrainingSettings

SETTINGS = {"steps": 6, "batch": 5, "learning_rate": 1e-3, "warm_up": 0, "base_tuning": "lora", "sample_every": 0}
SETTINGS |= {"still_share": 0.3, "base_still_share": 0.2, "high_noise_share": 0.2, "validate_every": 2}
RUN = """
import logging, pathlib, sys
sys.path[:0] = sys.argv[1].split(":")
import pack
from toy import Told, toy_run
from magicvideo.adaptor_unet.training.processes import processes
from magicvideo.adaptor_unet.training.settings import TrainingSettings

class StopsOne(Told):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def stop(self):
        return run.accelerator.process_index == 1 and run.state.step == self.at

told, logger = [], logging.getLogger("magicvideo.trainer.plans")
with processes(cpu=True) as place:
    assert place.num_processes == 2
    logger.warning("A piece of advice.")
    logger.error("A fault of one.")
    for name, at in (("whole", -1), ("stopped", 3)):
        folder = pathlib.Path(sys.argv[2]) / name
        run = toy_run(TrainingSettings(**eval(sys.argv[3])), folder, StopsOne(at), accelerator=place)
        told.append("finished" if run.train() else "stopped")
        told.append(str(run.state.step))
import torch
assert not torch.distributed.is_initialized()
sys.stdout.write(" ".join(told) + "\\n")  # in one piece: two processes write here
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes on this machine, over gloo, have made in a run to the end, and then in one that stops."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "run.py").write_text(RUN, encoding="utf-8")
    done = launched(folder / "run.py", str(folder), repr(SETTINGS))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("finished 6 stopped 3") == 2
    (folder / "log").write_text(done.stderr, encoding="utf-8")
    return folder


def launched(script: Path, *arguments: str) -> subprocess.CompletedProcess:
    tests = Path(__file__).parent.parent
    places = f"{tests / 'support'}:{tests.parent / 'bin'}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(script), places, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_train_the_adaptor_of_one(two: Path, tmp_path: Path) -> None:
    toy_run(TrainingSettings(**SETTINGS), tmp_path).train()
    one, other = (load_file(states(folder)[-1]) for folder in (tmp_path, two / "whole"))
    assert set(one) == set(other)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_all_processes_stop_when_one_is_asked_to(two: Path) -> None:
    assert [path.name for path in states(two / "stopped")] == ["step-00000003.state"]


@pytest.mark.slow
def test_advice_comes_from_the_first_process_alone_and_faults_from_all(two: Path) -> None:
    log = (two / "log").read_text(encoding="utf-8")
    assert log.count("A piece of advice.") == 1 and log.count("A fault of one.") == 2


FAILING = """
import pathlib, sys
sys.path[:0] = sys.argv[1].split(":")
import pack
from toy import Told, ToyDenoiser, toy_data, toy_run
from magicvideo.adaptor_unet.training.data.latent_clip import MemoryClips
from magicvideo.adaptor_unet.training.processes import processes
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.training_error import TrainingError

def failing(what):
    return what == now and run.accelerator.process_index == 1 and run.state.step == 3

class Gone(MemoryClips):
    def __getitem__(self, item):
        if failing("clip"):
            raise ValueError("a.safetensors cannot be read.")
        return super().__getitem__(item)

class Short(ToyDenoiser):
    def predict(self, *args, **named):
        if failing("memory"):
            raise MemoryError("out of memory")
        return super().predict(*args, **named)

with processes(cpu=True) as place:
    data = toy_data()
    data.__dict__["train"] = Gone(data.train.clips)
    settings = TrainingSettings(**eval(sys.argv[3]))
    for now in ("clip", "memory"):
        folder = pathlib.Path(sys.argv[2]) / now
        run = toy_run(settings, folder, Told(), clips=data, denoiser=Short(), accelerator=place)
        try:
            run.train()
        except TrainingError as error:
            sys.stdout.write(f"{now}, {place.process_index}: {error}\\n")
"""


@pytest.mark.slow
def test_what_one_process_cannot_do_loses_no_step_of_all(tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING, encoding="utf-8")
    done = launched(script, str(tmp_path), repr(SETTINGS))
    said = {"clip": "a.safetensors cannot be read.", "memory": "Out of memory during training"}
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    for what, sentence in said.items():
        other = "Another process could not go on, and says why itself. What was learnt in 3 steps is saved."
        assert told[f"{what}, 0"] == other, done.stderr[-3000:]
        assert told[f"{what}, 1"].startswith(sentence)
        assert told[f"{what}, 1"].endswith("The first process saves what was learnt.")
        run = toy_run(TrainingSettings(**SETTINGS), tmp_path / what)
        assert run.resume() and run.state.step == 3


WAITING = """
import pathlib, sys, time
from datetime import timedelta
sys.path[:0] = sys.argv[1].split(":")
import pack
from magicvideo.adaptor_unet.training import processes
processes.WAITS = timedelta(seconds=1)
place = processes.accelerator(cpu=True)
with place.main_process_first():
    if place.is_main_process:
        time.sleep(5)  # it encodes
"""


@pytest.mark.slow
def test_how_long_processes_wait_is_what_is_set(tmp_path: Path) -> None:
    """The group's own limit is half an hour, after which a long encoding would end all of them."""
    (tmp_path / "wait.py").write_text(WAITING, encoding="utf-8")
    done = launched(tmp_path / "wait.py")
    assert done.returncode != 0 and "1000ms" in done.stderr


def test_gradients_are_added_up_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduced(tensor: torch.Tensor, async_op: bool) -> SimpleNamespace:
        reached.append(tensor.data_ptr())
        return SimpleNamespace(wait=lambda: tensor.mul_(2))

    total, weights, reached = torch.tensor(3.0), [torch.nn.Parameter(torch.ones(2, 3)) for _ in range(3)], []
    weights[0].grad, weights[2].grad = torch.full((2, 3), 2.0), torch.full((2, 3), 5.0)
    expected = [x.data_ptr() for x in (total, weights[0].grad, weights[2].grad)]
    monkeypatch.setattr(torch.distributed, "all_reduce", reduced)
    monkeypatch.setattr(torch, "cat", pytest.fail)
    add_up(SimpleNamespace(num_processes=2, reduce=pytest.fail), total, weights)
    assert (total, weights[0].grad[0, 0], weights[1].grad, weights[2].grad[1, 2]) == (6, 4, None, 10)
    assert reached == expected


def test_without_accelerate_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match="Training needs accelerate: run `pip install accelerate`"):
        accelerator(cpu=True)
