"""Words that people type into the page's search for nodes: the right node of ours is among the first three."""

import json

import pytest
from page import SECOND, Page
from playwright.sync_api import expect

from magicvideo.tools.host_server import PACK

WORDS = json.loads((PACK / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
OURS = {node["display_name"] for node in WORDS.values()}
# "interpolate" finds nothing, as the pack makes no frames between frames (tests/server/test_node_listing.py).
RIGHT = {
    "animate": "Apply MagicVideo",
    "video": "Apply MagicVideo",
    "motion": "Load Motion Module",
    "loop": "Expand Latent to Clip",
    "consistent": "Cross-Frame Attention",
    "flicker": "Frame AdaIN",
}


@pytest.mark.on_newest
def test_words_that_people_search_for_find_the_right_node_among_the_first_three_of_ours(page: Page) -> None:
    page.run("app.graph.clear()")
    for word, node in RIGHT.items():
        page.tab.mouse.dblclick(700, 500)
        page.tab.wait_for_timeout(SECOND)
        page.tab.keyboard.type(word)
        page.tab.wait_for_timeout(SECOND)
        options = page.tab.get_by_role("option")
        expect(options.first).to_be_visible()
        ours = [name for text in options.all_inner_texts() if (name := text.strip().splitlines()[0]) in OURS]
        page.tab.keyboard.press("Escape")
        page.tab.wait_for_timeout(SECOND // 2)
        assert node in ours[:3], f"{word}: {ours}"
