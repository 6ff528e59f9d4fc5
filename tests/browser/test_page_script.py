"""What the pack's own script does on the page: names of choices, and why a run was refused."""

from collections.abc import Iterator

import pytest
from page import Page
from playwright.sync_api import expect
from served_models import WEB_PAGE

LANGUAGE = "language => app.extensionManager.setting.set('Comfy.Locale', language)"
SHOWN = """([type, name]) => {
    const widget = app.graph._nodes.find(node => node.type === type).widgets.find(widget => widget.name === name)
    return [widget.value, widget._displayValue]
}"""


@pytest.fixture
def in_korean(page: Page) -> Iterator[Page]:
    page.run(LANGUAGE, "ko")
    page.open()
    try:
        yield page
    finally:
        page.run(LANGUAGE, "en")
        page.open()


@pytest.mark.smoke
def test_why_a_run_was_refused_is_read_without_pressing_anything(page: Page) -> None:
    page.open_template("demo_text_to_video")
    page.set_widgets(adaptor_name=WEB_PAGE)
    failed = page.queue()["failed"]
    expect(page.tab.get_by_text(failed.strip()).last).to_be_visible()


def test_choices_have_names_in_the_pages_language_and_keep_their_values(in_korean: Page) -> None:
    in_korean.open_template("text_to_video")
    assert in_korean.run(SHOWN, ["MagicVideo_Apply", "order"]) == ["auto", "자동 (auto)"]
    assert in_korean.run(SHOWN, ["KSampler", "sampler_name"]) == ["euler", "euler"], "other nodes stay as they are"
    (apply,) = (node for node in in_korean.prompt().values() if node["class_type"] == "MagicVideo_Apply")
    assert apply["inputs"]["order"] == "auto"
