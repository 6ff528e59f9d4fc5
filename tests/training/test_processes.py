"""Several processes train the adaptor that one trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import toy_run

from magicvideo.adaptor_unet.training.processes import accelerator
from magicvideo.adaptor_unet.training.run_state import states
from magicvideo.adaptor_unet.training.settings import TrainingSettings

SETTINGS = {"steps": 6, "batch": 5, "learning_rate": 1e-3, "warm_up": 0, "base_tuning": "lora", "sample_every": 0}
SETTINGS |= {"still_share": 0.3, "base_still_share": 0.2, "high_noise_share": 0.2, "validate_every": 2}
RUN = """
import pathlib, sys
sys.path[:0] = sys.argv[1].split(":")
import pack
from toy import Told, toy_run
from magicvideo.adaptor_unet.training.processes import processes
from magicvideo.adaptor_unet.training.settings import TrainingSettings

class StopsOne(Told):
    def stop(self):
        return run.accelerator.process_index == 1 and run.state.step == int(sys.argv[4])

with processes(cpu=True) as place:
    assert place.num_processes == 2
    run = toy_run(TrainingSettings(**eval(sys.argv[3])), pathlib.Path(sys.argv[2]), StopsOne(), accelerator=place)
    ended = "finished" if run.train() else "stopped"
import torch
assert not torch.distributed.is_initialized()
sys.stdout.write(f"{ended} {run.state.step}\\n")  # in one piece: two processes write here
"""


def launch(folder: Path, stop_at: int = -1) -> str:
    """Two processes on this machine, over gloo."""
    script = folder.with_suffix(".py")
    script.write_text(RUN, encoding="utf-8")
    tests = Path(__file__).parent.parent
    places = f"{tests / 'support'}:{tests.parent / 'bin'}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), places, str(folder), repr(SETTINGS), str(stop_at)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_train_the_adaptor_of_one(tmp_path: Path) -> None:
    assert launch(tmp_path / "two").count("finished 6") == 2
    toy_run(TrainingSettings(**SETTINGS), tmp_path / "one").train()
    one, two = (load_file(states(tmp_path / name)[-1]) for name in ("one", "two"))
    assert set(one) == set(two)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_all_processes_stop_when_one_is_asked_to(tmp_path: Path) -> None:
    assert launch(tmp_path / "two", stop_at=3).count("stopped 3") == 2
    assert [path.name for path in states(tmp_path / "two")] == ["step-00000003.state"]


def test_without_accelerate_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match="Training needs accelerate: run `pip install accelerate`"):
        accelerator(cpu=True)
