"""bin/train with a motion module, killed in its middle and resumed: what comes out is what an undisturbed run gives.

The run of an adaptor from clips alone is killed in test_train_command.py.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_clips import write_clip

from magicvideo.tools.host_server import PACK
from magicvideo.tools.make_random_checkpoint import write_random, write_random_motion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.on_newest,
    pytest.mark.skipif(os.name != "posix", reason="kill -9 is a word of POSIX"),
]

MODELS = PACK / ".demo" / "models"
BASE, MODULE = MODELS / "checkpoints" / "magicvideo_random.safetensors", "magicvideo_random_motion_module.ckpt"
STEPS = 3
QUICK = [
    "--frames",
    "2",
    "--width",
    "64",
    "--height",
    "64",
    "--rank",
    "2",
    "--steps",
    str(STEPS),
    "--precision",
    "fp32",
]
QUICK += ["--save-every", "1", "--keep", str(STEPS), "--sample-every", "0", "--validate-every", "0"]
TEACHER = ["--teacher", "{module}", "--prompts", "{prompts}", "--teacher-clips", "2", "--teacher-steps", "2"]
WAYS = {
    # Mixed with clips of one's own: all that a step may see.
    "teacher": [*TEACHER, "--clips", "{clips}", "--draws-per-clip", "1", "--init", "random"],
    "motion_lora": ["--train", "motion_lora", "--motion-module", "{module}", "--clips", "{clips}"],
}


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str, str], list[str]]:
    """The words of a way to train, into a folder of that name."""
    module = MODELS / "animatediff_models" / MODULE
    if not BASE.is_file():
        write_random(BASE, "checkpoint")
    if not module.is_file():
        write_random_motion(module, "motion_module", variant="v2", size="compact")
    write_clip(tmp_path / "clips" / "a.mp4", frames=6)
    (tmp_path / "prompts.txt").write_text("a square\n", encoding="utf-8")
    places = {"module": module, "prompts": tmp_path / "prompts.txt", "clips": tmp_path / "clips"}

    def words(way: str, output: str) -> list[str]:
        files = ["--base", str(BASE), "--output", str(tmp_path / output / "a.safetensors")]
        return [str(PACK / "bin" / "train.py"), *files, *(word.format(**places) for word in WAYS[way]), *QUICK]

    return words


def killed(words: list[str], run: Path) -> None:
    """Trains in a process of its own, which is killed behind the first step of which a state is there."""
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    while not list(run.glob("step-*.state")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    told = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, told


@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_it_equals_the_run_that_was_not(
    way: str, command: Callable[[str, str], list[str]], train_here: Callable[[list[str]], int], tmp_path: Path
) -> None:
    assert train_here(command(way, "whole")) == 0
    words, last = command(way, "killed"), f"step-{STEPS:08}.state"
    killed(words, tmp_path / "killed" / "a.run")
    assert not (tmp_path / "killed" / "a.run" / last).exists()
    assert train_here([*words, "--resume"]) == 0
    for name in (f"a.run/{last}", "a.safetensors"):
        expected, found = (load_file(tmp_path / one / name) for one in ("whole", "killed"))
        assert found.keys() == expected.keys() and all(torch.equal(x, expected[key]) for key, x in found.items())
