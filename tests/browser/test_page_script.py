"""What the pack's own script does on the page: names of choices."""

from collections.abc import Iterator

import pytest
from page import Page

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


def test_choices_have_names_in_the_pages_language_and_keep_their_values(in_korean: Page) -> None:
    in_korean.open_template("text_to_video")
    assert in_korean.run(SHOWN, ["MagicVideo_Apply", "order"]) == ["auto", "자동 (auto)"]
    assert in_korean.run(SHOWN, ["KSampler", "sampler_name"]) == ["euler", "euler"], "other nodes stay as they are"
    (apply,) = (node for node in in_korean.prompt().values() if node["class_type"] == "MagicVideo_Apply")
    assert apply["inputs"]["order"] == "auto"
