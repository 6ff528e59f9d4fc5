"""Templates as a newcomer meets them: found in the template browser, opened, run."""

import re

import pytest
from page import Page
from playwright.sync_api import expect

from magicvideo.tools.host_server import HostServer
from magicvideo.tools.page_layout import LEAST_SCALE, SMALL_WINDOW, WINDOW
from magicvideo.tools.templates import TITLES

TEMPLATES = list(TITLES)
# Of wide templates and of high ones, those that fill the page most.
WIDEST = ("text_to_video", "long_video_to_video_controlnet")
# What the page writes to the browser's console by itself, with any graph or with none: older ones ask the registry of
# the packs that a graph names, which this server has been told to forbid.
OF_THE_PAGE = (r"https://api\.comfy\.org/nodes\?",)
NODE_TYPES = "app.graph._nodes.map(node => [node.type, node.type in LiteGraph.registered_node_types])"
# Boxes as the page draws them, which may be larger than what the file says; the title is above a node's own box.
NODES = """() => {
    const title = LiteGraph.NODE_TITLE_HEIGHT
    return app.graph._nodes.map(({ id, title: name, pos, size }) =>
        [`${id} ${name}`, [pos[0], pos[1] - title, size[0], size[1] + title]])
}"""
GROUPS = "app.graph._groups.map(group => [...group._bounding])"
# What of the window the nodes cover, in pixels: left, top, right, bottom.
COVERED = """() => {
    const { scale, offset } = app.canvas.ds
    const edges = app.graph._nodes.map(({ boundingRect: [x, y, width, height] }) => [x, y, x + width, y + height])
    const seen = i => edges.map(edge => (edge[i] + offset[i % 2]) * scale)
    return [Math.min(...seen(0)), Math.min(...seen(1)), Math.max(...seen(2)), Math.max(...seen(3))]
}"""
Box = list[float]


def inside(box: Box, group: Box) -> bool:
    return all(group[i] <= box[i] and box[i] + box[i + 2] <= group[i] + group[i + 2] for i in (0, 1))


def overlap(a: Box, b: Box) -> bool:
    return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))


@pytest.mark.smoke
def test_the_template_browser_shows_a_picture_for_each_template(page: Page) -> None:
    dialog = page.templates()
    for name in TEMPLATES:
        picture = page.template_card(dialog, name).locator("img").first
        # The width of what the browser has decoded, whatever the card makes of it.
        expect(picture).to_have_js_property("naturalWidth", 256)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.smoke] * (name in WIDEST)) for name in TEMPLATES]
)
def test_each_template_opens_tidy_readable_whole_and_without_a_warning(
    page: Page, server: HostServer, name: str
) -> None:
    page.warnings.clear()
    logged = len(server.log())
    # Some by clicks, as a person does; all others by what the last click calls.
    (page.open_template if name in WIDEST else page.open_template_file)(name)
    page.picture(f"template_{name}_{WINDOW[0]}")
    assert [type for type, known in page.run(NODE_TYPES) if not known] == []
    nodes, groups = page.run(NODES), page.run(GROUPS)
    boxes = dict(nodes)
    assert [(a, b) for a in boxes for b in boxes if a < b and overlap(boxes[a], boxes[b])] == []
    # A note lies in no group; anything else that touches one lies in it.
    outside = [name for name, box in nodes if not any(inside(box, group) for group in groups)]
    assert [name for name in outside if any(overlap(boxes[name], group) for group in groups)] == []
    assert page.run("app.canvas.ds.scale") >= LEAST_SCALE
    assert not page.run("app.canvas.low_quality"), "the page leaves all text out"
    page.resize(SMALL_WINDOW)
    try:
        page.open_template_file(name)
        page.picture(f"template_{name}_{SMALL_WINDOW[0]}")
        left, top, right, bottom = page.run(COVERED)
    finally:
        page.resize(WINDOW)
    assert 0 <= left and 0 <= top and right <= SMALL_WINDOW[0] and bottom <= SMALL_WINDOW[1]
    assert [told for told in page.warnings if not any(re.search(known, told) for known in OF_THE_PAGE)] == []
    assert server.log()[logged:] == ""
