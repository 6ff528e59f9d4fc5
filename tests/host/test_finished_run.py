"""A run that is finished and queued again gives its result at once: nothing is encoded, copied or sampled."""

import errno
import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graph_training import folders_below, graph_training, server_progress
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.training.training_error import OutOfMemoryError
from magicvideo.adaptor_unet.training.watchers import read_records
from magicvideo.trainer import graph, plans
from magicvideo.trainer.graph_runs import RUN_FILE, SAMPLE_FILE

pytestmark = pytest.mark.on_newest


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(tmp_path))
    with server_progress():
        yield


def test_what_it_gave_is_given_again_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = graph_training(steps=1).train()
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(plans, "MotionTraining", pytest.fail)
        again = graph_training(steps=1, called=pytest.fail).train()
    assert "motion_00001.safetensors is finished: nothing is trained" in caplog.text
    weights = [given[0].model.state_dict() for given in (first, again)]
    assert all(torch.equal(x, weights[1][name]) for name, x in weights[0].items())
    assert torch.equal(first[1], again[1])
    torch.testing.assert_close(again[2], first[2], atol=1 / 255, rtol=0)


def test_without_its_last_clip_one_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    graph_training(steps=1).train()
    sample = tmp_path / "runs" / "motion_00001" / SAMPLE_FILE
    for damage in (lambda: sample.write_bytes(b"nothing"), sample.unlink):
        damage()
        called.clear()
        graph_training(steps=1, called=called.append).train()
        assert called.count("decode") == 1 and sample.is_file()
    assert len(list((tmp_path / "runs").glob("motion_*"))) == 1
    write_text = Path.write_text

    def full(path: Path, text: str, encoding: str) -> None:
        write_text(path, text[: 5 if RUN_FILE in path.name else None], encoding)
        if RUN_FILE in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    sample.unlink()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ValueError, match="No space left there"):
        graph_training(steps=1).train()
    assert json.loads((sample.parent / RUN_FILE).read_text())["training"]["steps"] == 1, "it is known as before"


def test_with_sample_every_0_there_is_none_and_the_same_run_gives_one_when_it_is_asked_for(tmp_path: Path) -> None:
    called: list[str] = []
    assert graph_training(steps=1, sample_every=0, called=called.append).train()[2] is None
    assert "decode" not in called and not list(tmp_path.rglob(SAMPLE_FILE))
    assert graph_training(steps=1, called=called.append).train()[2] is not None
    assert called.count("decode") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["motion_00001"]


def test_memory_that_is_short_costs_no_step_of_a_run_in_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sentence says to go on with is queued, and the run goes on where it was."""
    predict = TrainingUnet.predict

    def short(self: TrainingUnet, *given: object, **named: object) -> torch.Tensor:
        if torch.is_grad_enabled() and len(list(tmp_path.rglob("*.state"))):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(self, *given, **named)

    fast = {"steps": 3, "save_every": 1, "sample_every": 0, "validate_every": 0}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingUnet, "predict", short)
        with pytest.raises(OutOfMemoryError, match="Go on with checkpointing.* in 1 steps is saved"):
            graph_training(**fast).train()
    graph_training(**fast | {"checkpointing": True}).train()
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert [record["step"] for record in read_records(run / "metrics.jsonl")] == [1, 2, 3]
    assert json.loads((run / RUN_FILE).read_text())["training"]["checkpointing"] is True


@pytest.mark.parametrize("ended_by", ["its last step", "an error"])
def test_nothing_of_a_run_stays_in_memory(ended_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref] = []
    made = TrainingUnet.__init__

    def noted(self: TrainingUnet, *given: object, **named: object) -> None:
        made(self, *given, **named)
        kept.append(weakref.ref(self.unet))

    def broken(*_: object, **__: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(TrainingUnet, "__init__", noted)
    gc.disable()
    try:
        if ended_by == "an error":
            monkeypatch.setattr(TrainingUnet, "predict", broken)
            with pytest.raises(ValueError, match="broken"):
                graph_training(steps=1).train()
        else:
            graph_training(steps=1, sample_every=0, validate_every=0).train()
        assert [one() for one in kept] == [None]
    finally:
        gc.enable()


def test_what_was_not_written_of_a_tuned_base_is_written_when_it_goes_on(tmp_path: Path) -> None:
    fast = {"steps": 1, "sample_every": 0, "validate_every": 0, "base_tuning": "lora"}
    graph_training(**fast).train()
    (base,) = (tmp_path / "loras").iterdir()
    base.unlink()
    graph_training(**fast).train()
    assert base.is_file() and len(list((tmp_path / "adaptors").iterdir())) == 1
