"""Using the pack on the page: run, save, come back, share, and make mistakes."""

import io
import urllib.request

import av
import numpy as np
import pytest
from page import OURS, Page
from served_models import ADAPTOR, WEB_PAGE, forget_results

from enlarged import as_drawn
from magicvideo.demo.measure.motion_rule import way
from magicvideo.tools.host_server import HostServer

# Small enough for a CPU; wider than high, to tell a frame from a sheet of frames.
SMALL = {"steps": 2, "width": 128, "height": 64, "batch_size": 4}
FRAMES = SMALL["batch_size"]
# Puts Load MagicVideo Adaptor in the place of New MagicVideo Adaptor, as the note in the graph says.
USE_FILE = """name => {
    const before = app.graph._nodes.find(node => node.type === "MagicVideo_NewAdaptor")
    const apply = app.graph._nodes.find(node => node.type === "MagicVideo_Apply")
    const loader = LiteGraph.createNode("MagicVideo_LoadAdaptor")
    loader.pos = [...before.pos]
    app.graph.remove(before)
    app.graph.add(loader)
    loader.widgets.find(widget => widget.name === "adaptor_name").value = name
    loader.connect(0, apply, apply.inputs.findIndex(input => input.name === "adaptor"))
}"""
ADD_WEBP = """() => {
    const decode = app.graph._nodes.find(node => node.type === "VAEDecode")
    const save = LiteGraph.createNode("SaveAnimatedWEBP")
    save.pos = [decode.pos[0], decode.pos[1] + 300]
    app.graph.add(save)
    decode.connect(0, save, 0)
}"""


def open_small(page: Page, adaptor: str = ADAPTOR) -> None:
    page.open_template("text_to_video")
    page.run(USE_FILE, adaptor)
    page.set_widgets(**SMALL)


def read(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:
        return answer.read()


def frames_of(address: str) -> np.ndarray:
    with av.open(io.BytesIO(read(address))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_run_shows_whole_previews_and_a_video_that_plays(page: Page) -> None:
    open_small(page)
    seen = page.queue()
    assert seen["failed"] is None
    # One frame, not the frames side by side, and never a picture that the browser cannot show.
    assert seen["previews"] and seen["broken"] == 0
    assert all(width == 2 * height for width, height in seen["previews"])
    (address,) = page.videos()
    assert frames_of(address).shape == (FRAMES, 64, 128, 3)


@pytest.mark.smoke
def test_the_template_for_the_demo_model_makes_a_video_that_goes_the_way_its_prompt_says(page: Page) -> None:
    page.open_template("demo_text_to_video")
    page.set_widgets(steps=6, batch_size=8)  # enough to see where it goes
    seen = page.queue()
    assert seen["failed"] is None and seen["broken"] == 0
    (address,) = page.videos()
    frames = frames_of(address)
    assert frames.shape == (8, 512, 512, 3)
    # Separate pictures differ as much from each other; only a motion goes one way.
    found = way(as_drawn(frames))
    assert found.along("left") > max(5, found.across("left")), found


# Frames of the video that each makes; the template above is told apart.
@pytest.mark.parametrize(
    ("name", "frames"),
    [("demo_long_video", 64), ("demo_image_to_video", 16), ("demo_extend_clip", 32), ("demo_train_motion", 16)],
)
def test_each_template_for_the_demo_model_runs_as_it_is_opened(page: Page, name: str, frames: int) -> None:
    page.open_template(name)
    page.set_widgets("KSampler", steps=1)
    page.set_widgets(
        "MagicVideo_Train",
        steps=2,
        settings="rank = 4\nsample_every = 0\nsample_steps = 1\nvalidate_every = 0\ndraws_per_clip = 1",
    )
    seen = page.queue()
    assert seen["failed"] is None and seen["broken"] == 0
    (address,) = page.videos()
    assert frames_of(address).shape == (frames, 512, 512, 3)


def test_a_saved_graph_makes_the_same_video_when_it_is_opened_by_somebody_else(
    page: Page, fresh_page: Page, server: HostServer
) -> None:
    open_small(page)
    page.queue()
    before, made = page.graph(), page.videos()[0]
    page.save_as("my clip 내 클립")
    forget_results(server)
    fresh_page.open()  # reloaded, because the list of graphs is read when the page loads
    fresh_page.open_saved("my clip 내 클립")
    assert fresh_page.graph() == before
    assert fresh_page.queue()["failed"] is None
    (again,) = fresh_page.videos()
    assert again.split("&rand")[0] != made.split("&rand")[0], "nothing was sampled"
    assert np.array_equal(frames_of(again), frames_of(made))


@pytest.mark.parametrize("kind", ["video/mp4", "image/webp"])
def test_a_result_dropped_onto_the_canvas_brings_back_its_graph(page: Page, server: HostServer, kind: str) -> None:
    open_small(page)
    page.run(ADD_WEBP)
    before = page.graph()
    forget_results(server)
    page.queue()
    page.videos()
    made = max(server.output.rglob(f"*.{kind.split('/')[1]}"), key=lambda path: path.stat().st_mtime)
    page.run("app.graph.clear()")
    page.drop(server.view(made), made.name, kind)
    page.wait(OURS)
    assert page.graph() == before


@pytest.mark.smoke
def test_a_file_that_is_no_adaptor_is_named_on_its_node(page: Page) -> None:
    open_small(page, adaptor=WEB_PAGE)
    failed = page.queue()["failed"]
    assert WEB_PAGE in failed and "web page" in failed
    assert failed.strip() in page.error_text()
    at_fault = "app.graph.getNodeById(app.lastExecutionError.node_id).type"
    assert page.run(at_fault) == "MagicVideo_LoadAdaptor"


def test_training_shows_its_progress_and_the_losses_with_a_sample_as_it_goes(page: Page) -> None:
    page.open_template("train_motion")
    page.set_widgets(**SMALL)
    settings = "rank = 4\ninit = 'random'\nsample_steps = 1\nsample_every = 2\nvalidate_every = 0\ndraws_per_clip = 2"
    page.set_widgets("MagicVideo_Train", steps=3, frames=4, width=64, height=64, settings=settings)
    seen = page.queue()
    assert seen["failed"] is None
    assert [3, 3] in seen["progress"]
    # The plot of the losses, 960 x 360, and below it four square frames side by side; KSampler's previews are small.
    assert [960, 600] in seen["previews"] and seen["broken"] == 0
    page.wait("app.graph._nodes.find(node => node.type === 'PreviewImage').imgs?.[0]?.naturalWidth > 0")
    page.videos()
