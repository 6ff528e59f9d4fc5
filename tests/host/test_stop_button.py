"""The stop button of a graph, pressed in every phase of a short training: nothing is lost, and it goes on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from comfy.model_management import InterruptProcessingException, processing_interrupted
from safetensors.torch import load_file
from small_clips import write_clip

from graph_training import QUICK, folders_below, graph_training, press_stop, server_progress
from magicvideo.adaptor_unet.training import loop, validation
from magicvideo.adaptor_unet.training.run_state import states
from magicvideo.adaptor_unet.training.watchers import Record
from magicvideo.trainer import graph, plans
from magicvideo.trainer.preview_watch import PreviewWatch

# A training each, which takes a while.
pytestmark = pytest.mark.on_newest

STEPS = QUICK["steps"]


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(tmp_path))
    with server_progress():
        yield


class Stopper:
    """Presses stop at the ``count``-th time that something is told to happen, counted from one."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.left = what, count

    def __call__(self, what: str) -> None:
        self.left -= what == self.what
        if self.left == 0:
            self.left = -1
            press_stop()


def telling(monkeypatch: pytest.MonkeyPatch, called: Callable[[str], None]) -> None:
    """Has ``called`` told of every look at the loss, every step, every preview and every call of the UNet."""

    def before(place: object, name: str, what: str) -> None:
        real = getattr(place, name)

        def told(*args: object, **named: object) -> object:
            called(what)
            return real(*args, **named)

        monkeypatch.setattr(place, name, told)

    before(loop, "validation_loss", "validation")
    before(Record, "numbers", "numbers")
    before(PreviewWatch, "show", "show")
    before(plans.MotionTraining, "sample", "sample")
    before(validation, "clip_noise", "noise")


def steps_written(root: Path) -> list[int]:
    lines = (root / "runs" / "motion_00001" / "metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if "loss" in record]


def stopped(root: Path, stopper: Stopper, **inputs: object) -> None:
    """A run that is ended by the stop button, as a node must end then."""
    with pytest.raises(InterruptProcessingException):
        graph_training(called=stopper, **inputs).train()
    assert stopper.left < 0 and not processing_interrupted()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The adaptor of a run that nobody stopped."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "training_folders", lambda: folders_below(root))
        graph_training().train()
    return load_file(root / "adaptors" / "motion_00001.safetensors")


WHILE_TRAINING = {
    "the loss before the first step": ("validation", 1),
    "a figure of that loss": ("noise", 3),
    "the sample clip before the first step": ("sample", 1),
    "its decoding": ("decode", 1),
    "the first preview": ("show", 1),
    "the first step": ("numbers", 2),
    "a step in the middle": ("numbers", 4),
    "the last step": ("numbers", STEPS + 1),
    "the loss behind the last step": ("validation", 2),
    "the last sample clip": ("decode", 2),
}


@pytest.mark.parametrize("phase", WHILE_TRAINING)
def test_stopped_in_any_phase_a_short_training_is_saved_and_ends_as_if_it_had_not_been(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, torch.Tensor]
) -> None:
    stopper = Stopper(*WHILE_TRAINING[phase])
    with monkeypatch.context() as patch:
        telling(patch, stopper)
        stopped(tmp_path, stopper)
    assert (tmp_path / "adaptors" / "motion_00001.safetensors").is_file()
    done = int(states(tmp_path / "runs" / "motion_00001")[-1].stem.removeprefix("step-"))
    assert steps_written(tmp_path) == list(range(1, done + 1))
    graph_training().train()
    assert steps_written(tmp_path) == list(range(1, STEPS + 1))
    found = load_file(tmp_path / "adaptors" / "motion_00001.safetensors")
    assert all(torch.equal(x, found[name]) for name, x in whole.items())


@pytest.mark.parametrize("what", ["encode", "text"])
def test_stopped_while_wired_clips_are_encoded_nothing_is_begun(what: str, tmp_path: Path) -> None:
    stopped(tmp_path, Stopper(what, 1))
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("what", ["encode", "text"])
def test_stopped_while_a_folder_is_encoded_finished_clips_stay(what: str, tmp_path: Path) -> None:
    for place in range(3):
        write_clip(tmp_path / "clips" / f"{place}.mp4", shift=place + 1)
        (tmp_path / "clips" / f"{place}.txt").write_text(f"square {place}", encoding="utf-8")
    stopper = Stopper(what, 2)
    stopped(tmp_path, stopper, clips=tmp_path / "clips")
    kept = {path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert kept and not (tmp_path / "runs").exists()
    graph_training(clips=tmp_path / "clips", steps=1).train()
    assert kept < {path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}


def test_stopped_again_and_again_it_still_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, torch.Tensor]
) -> None:
    for count in (2, 3):
        with monkeypatch.context() as patch:
            stopper = Stopper("numbers", count)
            telling(patch, stopper)
            stopped(tmp_path, stopper)
    graph_training().train()
    assert steps_written(tmp_path) == list(range(1, STEPS + 1))
    found = load_file(tmp_path / "adaptors" / "motion_00001.safetensors")
    assert all(torch.equal(x, found[name]) for name, x in whole.items())
