"""Each shipped workflow, from the loader to the file."""

import json
from collections.abc import Callable

import av
import numpy as np
import pytest

from magicvideo.tools.host_server import PACK, HostServer, Prompt
from magicvideo.tools.prompt_edits import with_inputs
from workflow_input import make_input_files, short

WORKFLOWS = sorted(path.stem for path in (PACK / "workflows" / "api").glob("*.json"))
Small = Callable[..., Prompt]
# What trains takes long: test_training.py runs train_motion on every ComfyUI, from the file to the clip.
RUN_THERE = {"train_motion"}
# Those for the demo model are the others with its files in them; one runs on each.
OF_DEMO = {name for name in WORKFLOWS if name.startswith("demo_") and name != "demo_text_to_video"}
ON_NEWEST = {"sdxl_train_motion"} | OF_DEMO


def test_text_to_video_is_among_the_workflows() -> None:
    assert "text_to_video" in WORKFLOWS


@pytest.mark.parametrize(
    "workflow",
    [
        pytest.param(name, marks=[pytest.mark.on_newest] * (name in ON_NEWEST))
        for name in WORKFLOWS
        if name not in RUN_THERE
    ],
)
def test_each_workflow_runs_to_the_end(server: HostServer, small: Small, workflow: str) -> None:
    prompt = short(small(workflow))
    make_input_files(prompt, server.base / "input")
    files = server.run(prompt).files()
    assert files and all((server.output / name).stat().st_size for name in files)


@pytest.mark.smoke
def test_a_clip_is_sampled_and_saved_with_an_adaptor_that_changes_it(
    latent_of: Callable, small: Small, server: HostServer
) -> None:
    prompt = small("text_to_video", batch_size=4)
    with_adaptor, _ = latent_of(prompt)
    without, _ = latent_of(with_inputs(prompt, "MagicVideo_Apply", strength=0.0))
    assert np.isfinite(with_adaptor).all() and with_adaptor.std() > 0
    assert not np.array_equal(with_adaptor, without)


@pytest.mark.parametrize(
    ("width", "height"),
    [pytest.param(256, 384, marks=pytest.mark.on_newest), pytest.param(520, 392, marks=pytest.mark.on_oldest)],
)
def test_text_to_video_leaves_a_playable_file_with_its_graph(
    server: HostServer, small: Small, width: int, height: int
) -> None:
    # Two frames and no guidance: near full size a CPU needs some seconds a frame.
    frames, fps = 2, 12.0
    prompt = small("text_to_video", steps=1, cfg=1.0, batch_size=frames, fps=fps, frames=frames)
    prompt = with_inputs(prompt, width=width, height=height)
    (name,) = [name for name in server.run(prompt).files() if name.endswith(".mp4")]
    with av.open(str(server.output / name)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(pictures) == frames
        assert float(stream.average_rate) == fps
        assert pictures[0].shape == (height, width, 3)
        assert pictures[0].std() > 0
        found = json.loads(container.metadata["prompt"])
        for node in found.values():
            node.pop("is_changed", None)  # ComfyUI notes there what loaders say of their files
        assert found == prompt
        assert "workflow" in container.metadata
