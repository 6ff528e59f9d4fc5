"""What the pack's own script does on the page: choices' names, results that play, refusals, a clip that comes along."""

from collections.abc import Iterator

import pytest
from page import SECOND, Page
from playwright.sync_api import expect
from served_models import DEMO_ADAPTOR, WEB_PAGE

from magicvideo.tools.draw_clip import CLIP
from magicvideo.tools.host_server import HostServer

LANGUAGE = "language => app.extensionManager.setting.set('Comfy.Locale', language)"
SHOWN = """([type, name]) => {
    const widget = app.graph._nodes.find(node => node.type === type).widgets.find(widget => widget.name === name)
    return [widget.value, widget._displayValue]
}"""

# A graph of ComfyUI's own nodes that saves a video.
STOCK_VIDEO = """() => {
    const make = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node }
    const [image, video, save] = ["EmptyImage", "CreateVideo", "SaveVideo"].map(make)
    image.widgets.find(widget => widget.name === "width").value = 64
    image.widgets.find(widget => widget.name === "height").value = 64
    image.widgets.find(widget => widget.name === "batch_size").value = 30
    image.connect(0, video, 0)
    video.connect(0, save, 0)
    save.pos = [300, 300]
}"""
HAS_CHOICE = """name => app.graph._nodes.find(node => node.type === "LoadVideo")
    .widgets.find(widget => widget.name === "file").options.values.includes(name)"""
PAUSED = "() => [...document.querySelectorAll('video')].map(video => video.paused)"


@pytest.fixture
def in_korean(page: Page) -> Iterator[Page]:
    page.run(LANGUAGE, "ko")
    page.open()
    try:
        yield page
    finally:
        page.run(LANGUAGE, "en")
        page.open()


def test_choices_have_names_in_the_pages_language_and_keep_their_values(in_korean: Page) -> None:
    in_korean.open_template_file("text_to_video")
    assert in_korean.run(SHOWN, ["MagicVideo_Apply", "order"]) == ["auto", "자동 (auto)"]
    assert in_korean.run(SHOWN, ["KSampler", "sampler_name"]) == ["euler", "euler"], "other nodes stay as they are"
    (apply,) = (node for node in in_korean.prompt().values() if node["class_type"] == "MagicVideo_Apply")
    assert apply["inputs"]["order"] == "auto"


@pytest.mark.smoke
def test_why_a_run_was_refused_is_read_without_pressing_anything_until_the_next_run(page: Page) -> None:
    page.open_template_file("demo_text_to_video")
    page.set_widgets(adaptor_name=WEB_PAGE, steps=1, batch_size=1)
    sentence = page.queue()["failed"].strip()
    expect(page.tab.get_by_text(sentence).last).to_be_visible()
    page.picture("refused")
    page.error_text()  # where there is a button for more, it can be pressed
    page.close_dialogs()
    page.set_widgets(adaptor_name=DEMO_ADAPTOR)
    assert page.queue()["failed"] is None
    expect(page.tab.locator(".p-toast").get_by_text(sentence)).to_have_count(0)


def test_a_batch_of_one_is_told_on_the_page_what_to_set(page: Page) -> None:
    page.open_template_file("demo_text_to_video")
    page.set_widgets(steps=1, batch_size=1, seed=7)  # nothing that the server has made
    page.queue()
    expect(page.tab.locator(".p-toast").get_by_text("set batch_size of Empty Latent Image").last).to_be_visible()


def test_a_result_plays_by_itself_and_loops_and_no_other_graphs_does(page: Page) -> None:
    page.run("app.graph.clear()")
    page.run(STOCK_VIDEO)
    page.queue()
    page.videos()
    page.tab.wait_for_timeout(SECOND)
    assert page.run(PAUSED) == [True]
    page.open_template_file("demo_text_to_video")
    page.set_widgets(steps=1, batch_size=4)
    page.queue()
    page.wait(f"({PAUSED})()[0] === false && document.querySelector('video').currentTime > 0")
    assert page.run("[...document.querySelectorAll('video')].map(video => [video.muted, video.loop])") == [[True, True]]


def test_a_template_brings_its_clip_along_and_only_once(page: Page, server: HostServer) -> None:
    for _ in range(2):
        page.open_template_file("video_to_video")
        page.wait(HAS_CHOICE, CLIP.name)
    assert [path.name for path in (server.base / "input").glob(f"{CLIP.stem}*")] == [CLIP.name]
    assert (server.base / "input" / CLIP.name).read_bytes() == CLIP.read_bytes()
