"""What newer pages offer beside the graph: subgraph blueprints among the nodes, and the app mode."""

import pytest
from page import SECOND, Page
from playwright.sync_api import expect

from magicvideo.tools.templates import TITLES

WIDGETS = "app.graph._nodes.map(node => [node.title, Object.fromEntries(node.widgets.map(w => [w.name, w.value]))])"


@pytest.mark.on_newest
@pytest.mark.smoke
def test_a_blueprint_is_found_like_a_node_and_asks_for_what_matters(page: Page) -> None:
    page.run("app.graph.clear()")
    page.tab.mouse.dblclick(900, 800)
    page.tab.keyboard.type("nothing trained")
    expect(page.tab.get_by_text("Draws the frames of a video anew").first).to_be_visible()
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_timeout(SECOND)
    page.tab.mouse.click(700, 600)  # where it is put down
    page.wait("app.graph._nodes.length === 1")
    ((title, widgets),) = page.run(WIDGETS)
    assert title == "Video to Video (nothing trained)"
    assert widgets["prompt"] == "a watercolor painting, soft light, detailed"
    assert (widgets["width"], widgets["steps"], widgets["denoise"]) == (512, 20, 0.7)
    kinds = sorted(node["class_type"] for node in page.prompt().values())
    assert "MagicVideo_DirectedAttention" in kinds and "SamplerCustomAdvanced" in kinds and len(kinds) == 15


@pytest.mark.on_newest
@pytest.mark.smoke
def test_the_app_mode_asks_for_a_few_inputs(page: Page) -> None:
    page.open_template("demo_text_to_video")
    page.wait("name => app.extensionManager.workflow.activeWorkflow?.filename === name", TITLES["demo_text_to_video"])
    page.tab.wait_for_timeout(SECOND)  # a graph that is still coming would set the mode back
    page.command("Comfy.ToggleLinear")
    try:
        asked = page.tab.get_by_test_id("linear-widgets")
        for name in ("ckpt_name", "adaptor_name", "text", "batch_size", "seed"):
            expect(asked.get_by_text(name, exact=True)).to_be_visible()
        expect(asked.get_by_text("steps", exact=True)).to_have_count(0)
    finally:
        page.command("Comfy.ToggleLinear")
