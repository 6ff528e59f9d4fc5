"""Each node has a help page in each language that tells of exactly its inputs, by the names that the node shows.

tests/server compares the names in locales/ with the nodes themselves.
"""

import json
import re
from pathlib import Path

import pytest
from pack import ROOT
from shipped import read

PAGES = Path("web/docs")
WORDS = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "locales").glob("*/nodeDefs.json"))
}
# The headings that every page has: inputs, outputs (unless there is none), common mistakes.
HEADINGS = {
    "en": ("Inputs", "Outputs?", "Common mistakes"),
    "ja": ("入力", "出力", "よくある間違い"),
    "ko": ("입력", "출력", "흔한 실수"),
    "zh": ("输入", "输出", "常见错误"),
}
# What every node must have words and a page in, whatever lies in locales/.
LANGUAGES = {"en", "ja", "ko", "zh"}
CASES = [(language, node) for language, nodes in WORDS.items() for node in nodes]


def page_of(language: str, node: str) -> Path:
    """Where ComfyUI's page looks: in the folder of translations, then for the page that serves all others."""
    return PAGES / (f"{node}.md" if language == "en" else f"{node}/{language}.md")


def section(page: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def rows(text: str) -> list[str]:
    """The first cells of a table, without its head."""
    return [cell.strip() for cell in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)[2:]]


@pytest.mark.parametrize(("language", "node"), CASES)
def test_a_help_page_tells_of_the_nodes_inputs_in_their_order(language: str, node: str) -> None:
    page, words = read(page_of(language, node)), WORDS[language][node]
    assert page.startswith(f"# {words['display_name']}\n")
    told = rows(section(page, HEADINGS[language][0]))
    assert [name for row in told for name in re.findall(r"`(\w+)`", row)] == list(words["inputs"])
    if language != "en":
        assert told == [f"{text['name']} `{name}`" for name, text in words["inputs"].items()]


@pytest.mark.parametrize(("language", "node"), CASES)
def test_a_help_page_says_what_when_what_comes_out_and_what_goes_wrong(language: str, node: str) -> None:
    page, words = read(page_of(language, node)), WORDS[language][node]
    assert len(page.split("\n## ")[0]) > 60, "nothing is said before the inputs"
    outputs = section(page, HEADINGS[language][1])
    assert bool(outputs) == bool(words.get("outputs"))
    assert all(f"`{output['name']}`" in outputs for output in words.get("outputs", {}).values())
    assert re.search(r"^- \*\*.+\*\*", section(page, HEADINGS[language][2]), re.MULTILINE)


@pytest.mark.parametrize(("language", "node"), CASES)
def test_a_help_page_shows_one_picture_the_same_in_all_languages(language: str, node: str) -> None:
    (shown,) = re.findall(r"!\[[^\]]{15,}\]\((.+)\)", read(page_of(language, node)))
    # Links of a translation too are read as if it lay in the folder of the English page.
    assert (ROOT / PAGES / shown).is_file()
    assert f"({shown})" in read(page_of("en", node))


@pytest.mark.parametrize(("language", "node"), CASES)
def test_a_help_page_calls_our_nodes_by_their_names(language: str, node: str) -> None:
    names = {words["display_name"] for words in WORDS[language].values()}
    called = re.findall(
        r"(?<!\*)\*([^*\n]*MagicVideo[^*\n]*)\*(?!\*)|“([^”]*MagicVideo[^”]*)”", read(page_of(language, node))
    )
    assert {starred or quoted for starred, quoted in called} <= names


def test_every_node_has_its_words_in_every_language() -> None:
    assert set(WORDS) == set(HEADINGS) == LANGUAGES
    assert all(set(nodes) == set(WORDS["en"]) for nodes in WORDS.values())
    assert all((ROOT / "locales" / language / "main.json").is_file() for language in LANGUAGES)


def test_no_page_is_left_over() -> None:
    there = {path.relative_to(ROOT) for path in (ROOT / PAGES).rglob("*.md")}
    assert there == {page_of(language, node) for language, node in CASES}
