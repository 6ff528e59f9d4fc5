"""The pages that people read: their links lead somewhere, and their words are spelled right.  No host, no network."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from pack import ROOT
from shipped import read, shipped_files

HELP = Path("web/docs")
PAGES = shipped_files(".md")
# What codespell takes for mistakes and is none: a file name that was cut in two.
RIGHT_WORDS = {"trun", "caf"}
SPELLED = ("*.md", "*.py", "*.toml", "*.txt", "*.json", "*.svg")
OTHER_LANGUAGES = {"ja", "ko", "zh"}

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A template by its name, as it is told of in all languages.
TEMPLATE = re.compile(r"(?:[Tt]emplate|テンプレート|템플릿|模板) ?(?:\*+|“)([^*”\n]+)(?:\*+|”)")
SOURCE = re.compile(r"<(?:img|a|video)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")


def prose(text: str) -> str:
    """A page without code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))


def links(text: str) -> list[str]:
    return [found for pattern in (LINK, SOURCE) for found in pattern.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """What the headings of a page can be reached by, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", FENCED.sub("", text), re.MULTILINE):
        shown = LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere in this repository."""
    wrong = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            wrong += [] if re.match(r"(https://[\w.-]+\.[a-z]+(/|$)|mailto:)", link) else [f"{link}: no https address"]
            continue
        if page.is_relative_to(HELP) and not target.startswith("pictures/"):
            wrong.append(f"{link}: ComfyUI opens links of help pages from its own address")
            continue
        # ComfyUI looks for the pictures of all help pages, also of those in a folder of their own, from the same place.
        folder = HELP if page.is_relative_to(HELP) else page.parent
        place = (ROOT / folder / unquote(target)).resolve() if target else ROOT
        if not place.exists() or not place.is_relative_to(ROOT):
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(place.read_text(encoding="utf-8") if target else text):
            wrong.append(f"{link}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken(page, read(page)) == []


def test_a_template_is_told_of_by_the_name_that_the_template_browser_shows() -> None:
    titles = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    told = {(page, name) for page in PAGES for name in TEMPLATE.findall(read(page))}
    assert len(told) > 10
    assert {(page, name) for page, name in told if name not in titles} == set()


def test_the_pages_that_people_read_are_among_those_tested() -> None:
    assert {Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"), Path("demo/README.md")} < set(PAGES)
    assert {path.parts[0] for path in PAGES} >= {"docs", "web"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](nowhere.md)", 1),
        ("[a](README.md)", 0),
        ("[a\nb](README.md#no-such-heading)", 1),
        ("[a](README.md#limits)", 0),
        ("# Two words, `code`\n\n[a](#two-words-code)", 0),
        ("# Same\n\n# Same\n\n[a](#same-1)", 0),
        ("# Same\n\n[a](#same-1)", 1),
        ("![a](docs/no.webp)", 1),
        ('<img src="docs/no.webp" alt="a">', 1),
        ("[a](/etc/hostname)", 1),
        ("[a](../outside.md)", 1),
        ("[a](http://example.org)", 1),
        ("[a](https://arxiv.org/abs/2211.11018)", 0),
        ("`[a](nowhere.md)`", 0),
        ("```\n[a](nowhere.md)\n```", 0),
    ],
)
def test_a_broken_link_is_found_and_a_sound_one_is_not(text: str, found: int) -> None:
    assert len(broken(Path("page.md"), text)) == found


def test_links_of_help_pages_are_taken_as_comfyui_takes_them() -> None:
    page = HELP / "NODE" / "ko.md"
    assert broken(page, "![a](pictures/causal_windows.svg)") == []
    assert len(broken(page, "![a](../pictures/causal_windows.svg) [a](../../../README.md) ![a](pictures/no.svg)")) == 3


def test_the_tour_of_the_code_is_read_in_one_go() -> None:
    tour = re.split(
        r"^## ",
        read(Path("docs/architecture.md")).partition("## Read the code in this order\n")[2],
        flags=re.MULTILINE,
    )[0]
    files = re.findall(r"^\d+\. \[`([\w/]+\.py)`\]", tour, re.MULTILINE)
    assert 6 <= len(files) <= 8 and len(files) == len(re.findall(r"^\d+\. ", tour, re.MULTILINE))
    assert sum(len(read(Path(file)).splitlines()) for file in files) < 900


def misspelled(*paths: str, text: str | None = None) -> list[str]:
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", ",".join(sorted(RIGHT_WORDS)), *paths]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 65), done.stderr  # 65: words were found
    return done.stdout.splitlines()


def test_pages_code_and_english_words_are_spelled_right() -> None:
    files = [path for path in shipped_files() if any(path.match(kind) for kind in SPELLED)]
    english = [path for path in files if not OTHER_LANGUAGES & {*path.parts, path.stem}]
    assert len(english) > 200 and misspelled(*map(str, english)) == []


def test_a_misspelled_word_is_found() -> None:
    assert misspelled("-", text="an a-dress\n".replace("-", ""))
