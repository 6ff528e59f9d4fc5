"""bin/demo as a newcomer runs it: the shipped model, the shipped workflow, the real host."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from enlarged import SHOWN, as_drawn
from magicvideo.demo import make_clip
from magicvideo.demo.measure.motion_rule import way
from magicvideo.demo.model.demo_models import ensure_models
from magicvideo.tools.host_server import PACK

ENLARGED = 512
# It takes the newest ComfyUI there is; test_workflows.py runs the demo's model on each.
pytestmark = pytest.mark.on_newest


BIN_DEMO = (sys.executable, str(PACK / "bin" / "run.py"), str(PACK / "demo" / "make_clip.py"))


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [*BIN_DEMO, *arguments, "--output", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(stream.average_rate)


@pytest.mark.slow
def test_a_prompt_becomes_a_video_in_which_the_thing_moves_as_asked(tmp_path: Path) -> None:
    done = demo(tmp_path, "blue background, a Star falling", "--seed", "7", "--fps", "12", "--frames", "5")
    assert done.returncode == 0, done.stderr
    (video,), (picture,) = tmp_path.glob("*.mp4"), tmp_path.glob("*.webp")
    assert str(video) in done.stdout and str(picture) in done.stdout
    frames, fps = read_video(video)
    assert len(frames) == 5 and fps == 12 and frames[0].shape == (ENLARGED, ENLARGED, 3)
    assert way(as_drawn(frames)).along("down") > 3
    with Image.open(picture) as animated:
        assert animated.info["loop"] == 0, "a web page shows it once"
        assert animated.n_frames == 5 and animated.size == (ENLARGED, ENLARGED)
        animated.seek(4)
        last = np.asarray(animated.convert("RGB"))
        assert animated.info["duration"] == 83
    # Clean edges: each pixel that the model drew is a square of one colour.
    squares = last.reshape(SHOWN, ENLARGED // SHOWN, SHOWN, ENLARGED // SHOWN, 3)
    assert np.array_equal(squares, np.broadcast_to(squares[:, :1, :, :1], squares.shape))


def test_a_refusal_is_a_sentence_and_an_exit_code(tmp_path: Path) -> None:
    done = demo(tmp_path, "a dog moving left")
    assert done.returncode == 2 and "'dog'" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a cat and a fish"], "one subject"),
        (["a cat", "--fps", "1000"], "from 1 to 120"),
        (["a cat", "--seed", "-1"], "from 0 to"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In this process, which has loaded torch already."""
    monkeypatch.setattr(sys, "argv", ["bin/demo", *arguments, "--output", str(tmp_path)])
    monkeypatch.setattr(make_clip.signal, "signal", lambda *_: None)  # how this process ends is pytest's
    monkeypatch.setattr(make_clip, "HostServer", pytest.fail)
    try:
        code = make_clip.main()
    except SystemExit as end:  # what the parser refuses
        code = end.code
    assert code == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_comfyui_that_does_not_start_is_named_with_its_log(tmp_path: Path) -> None:
    ensure_models(PACK / ".demo")  # or this ComfyUI would be asked for their layout
    broken = tmp_path / "ComfyUI"
    broken.mkdir()
    (broken / "main.py").write_text("raise SystemExit('no such luck')", encoding="utf-8")
    command = [*BIN_DEMO, "a cat", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"COMFYUI_PATH": str(broken)}
    )
    assert done.returncode == 1 and str(broken) in done.stderr and "no such luck" in done.stderr
