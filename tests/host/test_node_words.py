"""What a training node says on itself while it works."""

import re
from pathlib import Path

import pytest
from small_clips import write_clip

from graph_training import folders_below, graph_training, server_progress
from magicvideo.adaptor_unet.host import graph_watch
from magicvideo.adaptor_unet.host.graph_watch import GraphWatch
from magicvideo.trainer import graph

pytestmark = pytest.mark.on_newest


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    words: list[str] = []
    monkeypatch.setattr(graph_watch, "say_on_node", words.append)
    monkeypatch.setattr(graph, "say_on_node", words.append)
    return words


def test_a_phase_is_said_at_once_and_how_far_it_is_now_and_then(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watch = GraphWatch(3)
    for place in range(1, 101):
        watch.phase("validation", place, 100)
        now[0] += 0.01
    assert said == ["validation, 1 of 100", "validation, 51 of 100"]
    watch.note("About 3 min.")
    watch.phase("saving", 0, 0)
    assert said[-1] == "saving\nAbout 3 min."


def test_every_phase_stands_on_the_node(said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "training_folders", lambda: folders_below(tmp_path))
    monkeypatch.setattr("magicvideo.trainer.motion_training.make_room", lambda: said.append("the card is free"))
    write_clip(tmp_path / "clips" / "a.mp4")
    with server_progress():
        graph_training(clips=tmp_path / "clips", steps=1, validate_every=1, sample_every=1).train()
    first = [words.split("\n")[0].split(", ")[0] for words in said]
    assert list(dict.fromkeys(first)) == [
        "clip 1 of 1: reading a.mp4",
        "clip 1 of 1: looking for cuts in a.mp4",
        "clip 1 of 1: encoding a.mp4",
        "encoding captions",
        "copying the model",
        "timing a pass",
        "validation",
        "sample clip",
        "decoding the sample clip",
        "the card is free",
        "training",
        "saving",
    ]
    # How long follows from a timed pass, and so from how busy the machine is.
    assert re.fullmatch(r"saving\n(Less than a minute|About \d+ min) for 1 steps\.", said[-1])
