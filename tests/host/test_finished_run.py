"""A run that is finished and queued again gives its result at once: nothing is encoded, copied or sampled."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graph_training import folders_below, graph_training, server_progress
from magicvideo.trainer import graph, plans

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


def test_without_its_last_clip_one_is_made_anew(tmp_path: Path) -> None:
    called: list[str] = []
    graph_training(steps=1).train()
    sample = tmp_path / "runs" / "motion_00001" / graph.SAMPLE
    for damage in (lambda: sample.write_bytes(b"nothing"), sample.unlink):
        damage()
        called.clear()
        graph_training(steps=1, called=called.append).train()
        assert called.count("decode") == 1 and sample.is_file()
    assert len(list((tmp_path / "runs").glob("motion_*"))) == 1
