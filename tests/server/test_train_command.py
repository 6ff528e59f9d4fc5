"""bin/train as a user runs it, on the real host: to the end, killed, resumed, with bad input."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_clips import write_clip

from magicvideo.adaptor_unet.checkpoint import load
from magicvideo.adaptor_unet.training.settings import ALL_SETTINGS
from magicvideo.tools.host_server import PACK
from magicvideo.tools.make_random_checkpoint import write_random

CHECKPOINT = "magicvideo_random.safetensors"
SIZES = ["--frames", "4", "--width", "64", "--height", "64", "--rank", "4", "--init", "random", "--draws-per-clip", "2"]
RATES = ["--save-every", "1", "--sample-every", "0", "--validate-every", "2", "--precision", "fp32"]


def command(folder: Path, *options: str) -> list[str]:
    base = PACK / ".demo" / "models" / "checkpoints" / CHECKPOINT
    if not base.is_file():
        write_random(base, "checkpoint")
    files = [
        "--base",
        str(base),
        "--clips",
        str(folder / "clips 클립"),
        "--output",
        str(folder / "out" / "wave.safetensors"),
    ]
    return [sys.executable, str(PACK / "bin" / "train.py"), *files, *SIZES, *RATES, *options]


def train(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *options), capture_output=True, text=True, timeout=900)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in range(2):
        write_clip(tmp_path / "clips 클립" / f"clip {place}.mp4", shift=place + 1)
        (tmp_path / "clips 클립" / f"clip {place}.txt").write_text("a square that moves right", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.on_oldest  # on the newest the run that is killed is as long
def test_a_folder_becomes_an_adaptor_with_all_that_a_person_looks_at(folder: Path) -> None:
    (folder / "clips 클립" / "broken.mp4").write_bytes(b"nothing")
    done = train(folder, "--steps", "2", "--sample-every", "2", "--sample-steps", "1")
    assert done.returncode == 0, done.stderr
    assert "broken.mp4" in done.stderr and "1 of 3 clips are skipped" in done.stderr
    assert re.search(r"Load MagicVideo Adaptor \(wave.safetensors\) -> Apply MagicVideo \(fps (4|6|12)\)", done.stderr)
    adaptor = load(folder / "out" / "wave.safetensors")
    used = json.loads(adaptor.metadata["magicvideo.training"])
    assert (used["training"]["steps"], used["clips"]["frames"], used["adaptor"]["rank"]) == (2, 4, 4)
    run = folder / "out" / "wave.run"
    assert (run / "loss.png").is_file() and len(list((run / "samples").glob("*.webp"))) == 2


# The looks at the losses take longer than such steps.
QUICK = ("--steps", "3", "--validate-every", "0", "--frames", "2")


class Ended(NamedTuple):
    code: int
    told: str


@pytest.fixture
def ended(folder: Path, train_here: Callable[[list[str]], int], capsys: pytest.CaptureFixture) -> Callable[..., Ended]:
    """What the command ends with and says, in this process."""
    return lambda *options: Ended(train_here(command(folder, *options)[1:]), capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.on_newest
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a word of POSIX")
def test_killed_at_a_random_moment_and_resumed_it_equals_the_uninterrupted_run(
    folder: Path, tmp_path: Path, ended: Callable[..., Ended]
) -> None:
    code, told = ended(*QUICK)
    assert code == 0, told
    expected = load_file(folder / "out" / "wave.run" / "step-00000003.state")
    final = load_file(folder / "out" / "wave.safetensors")
    (folder / "out" / "wave.run").rename(folder / "whole.run")
    (folder / "out" / "wave.safetensors").unlink()
    process = subprocess.Popen(command(folder, *QUICK), stderr=subprocess.DEVNULL)
    while not list((folder / "out").glob("wave.run/step-*.state")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, told = ended(*QUICK, "--resume")
    assert code == 0, told
    found = load_file(folder / "out" / "wave.run" / "step-00000003.state")
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(x, final[name]) for name, x in load_file(folder / "out" / "wave.safetensors").items())


@pytest.mark.slow
@pytest.mark.on_oldest
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_saves_says_so_and_ends_with_130(folder: Path) -> None:
    process = subprocess.Popen(command(folder, *QUICK, "--steps", "100000"), stderr=subprocess.PIPE, text=True)
    while not (folder / "out" / "wave.safetensors").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Stopped; saved what there is in" in told
    load(folder / "out" / "wave.safetensors")


BAD = {
    "no base": (["--base", "/no/such.safetensors"], "--base: /no/such.safetensors is not there"),
    "no clips": (["--clips", "/no/such/folder"], "--clips: /no/such/folder is not there"),
    "bad setting": (["--learning-rate", "-1"], "learning_rate must be a finite number, 0 or more, found -1.0"),
    "no settings file": (["--settings", "/no/such.toml"], "/no/such.toml cannot be read"),
}


@pytest.mark.parametrize("name", ["web page.safetensors", "page.ckpt", "empty.safetensors", "adaptor.safetensors"])
def test_a_base_that_is_no_checkpoint_is_named(name: str, folder: Path, ended: Callable[..., Ended]) -> None:
    content = b"" if "empty" in name else b"<html>not found</html>"
    (folder / name).write_bytes(content)
    if "adaptor" in name:
        save_file({"x": torch.zeros(3)}, folder / name)
    code, told = ended("--base", str(folder / name))
    assert code == 2
    assert f"{name} cannot be loaded" in told and "expected a Stable Diffusion checkpoint" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case: str, folder: Path, ended: Callable[..., Ended]) -> None:
    options, words = BAD[case]
    code, told = ended(*options)
    assert code == 2 and words in told and "Traceback" not in told
    assert not (folder / "out" / "wave.safetensors").exists()


@pytest.mark.on_newest  # the other tests look at how its process ends there
def test_an_output_that_is_there_is_not_overwritten_and_its_process_ends_with_a_sentence(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "wave.safetensors").write_bytes(b"precious")
    done = train(folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is there already: add --resume" in done.stderr
    assert (folder / "out" / "wave.safetensors").read_bytes() == b"precious"


def shown(*options: str) -> str:
    environment = os.environ | {"COMFYUI_PATH": "/nowhere", "COLUMNS": "200"}
    command = [sys.executable, str(PACK / "bin" / "train.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    return done.stdout


def test_help_shows_what_matters_first_and_help_all_every_setting_without_a_host() -> None:
    first, every = shown("--help"), shown("--help-all")
    options = re.compile(r"^  (--[a-z-]+)", re.MULTILINE)
    shown_first = {"--base", "--clips", "--output", "--resume", "--steps", "--width", "--height", "--learning-rate"}
    assert set(options.findall(first)) - {"--help-all"} == shown_first
    assert {f"--{name.replace('_', '-')}" for name in ALL_SETTINGS} <= set(options.findall(every))
    assert "--write-shards" in every and "Ctrl-C saves and stops" in first


@pytest.mark.slow
@pytest.mark.on_newest
def test_with_no_options_but_the_paths_it_fits_the_clips_and_always_says_what_it_does(tmp_path: Path) -> None:
    for place in range(3):
        write_clip(tmp_path / "clips" / f"{place}.mp4", frames=16, shift=place)
    base, output = PACK / ".demo" / "models" / "checkpoints" / CHECKPOINT, tmp_path / "out.safetensors"
    files = ["--base", str(base), "--clips", str(tmp_path / "clips"), "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, str(PACK / "bin" / "train.py"), *files], stderr=subprocess.PIPE, text=True
    )
    told, silent, last = "", [], time.monotonic()
    for line in process.stderr:
        silent.append(time.monotonic() - last)
        told, last = told + line, time.monotonic()
    assert process.wait() == 0, told
    # The first line comes once torch is loaded; the bound is for a machine that does much else.
    assert max(silent[1:]) < 20
    assert "Trained at 64x64, because 0.mp4 is no larger" in told
    assert "these are 6 steps, to try things; --steps 500 trains" in told
    for phase in ("starting ComfyUI", f"loading {CHECKPOINT}", "reading clips", "copying the model"):
        assert f"{phase} [" in told
    assert "training:" in told
    assert "clip 2 of 3: encoding 1.mp4, sub-clip 1 of" in told
    assert load(output).metadata["ss_steps"] == "6"
