"""What the page learns from the server before anybody queues anything."""

import json
import urllib.request
from typing import Any

import pytest

from magicvideo.tools.host_server import PACK, PACK_NAME, HostServer

LANGUAGES = sorted(path.name for path in (PACK / "locales").iterdir())
NODES = {
    "MagicVideo_LoadAdaptor",
    "MagicVideo_NewAdaptor",
    "MagicVideo_Apply",
    "MagicVideo_CausalWindows",
    "MagicVideo_ExpandLatent",
    "MagicVideo_SaveAdaptor",
    "MagicVideo_DirectedAttention",
    "MagicVideo_AlignFrames",
    "MagicVideo_CalibrateAdaptor",
    "MagicVideo_FrameNoise",
    "MagicVideo_LoadMotionModule",
    "MagicVideo_LoadMotionLoRA",
    "MagicVideo_ApplyMotionModule",
}


@pytest.fixture(scope="module")
def listed(server: HostServer) -> dict[str, Any]:
    return {name: node for name, node in server.get("/object_info").items() if name.startswith("MagicVideo_")}


def search_words(node: dict[str, Any]) -> list[str]:
    """Of a node by which no words lead to it, the host says that it has none, or nothing."""
    return node.get("search_aliases") or []


def test_every_node_is_listed(listed: dict[str, Any]) -> None:
    assert set(listed) >= NODES


def test_every_node_has_a_description_and_a_display_name(listed: dict[str, Any]) -> None:
    assert [name for name, node in listed.items() if not node["description"] or node["display_name"] == name] == []


def test_every_input_has_a_tooltip(listed: dict[str, Any]) -> None:
    inputs = [
        (node, name, spec)
        for node, entry in listed.items()
        for group in ("required", "optional")
        for name, spec in entry["input"].get(group, {}).items()
    ]
    assert [(node, name) for node, name, spec in inputs if len(spec) < 2 or not spec[1].get("tooltip")] == []


def test_every_node_is_found_by_words_that_are_not_its_name(listed: dict[str, Any]) -> None:
    aliases = {name: search_words(node) for name, node in listed.items() if "search_aliases" in node}
    # The oldest hosts know no such words; whoever knows them for one node knows them for all.
    assert set(aliases) in (set(), set(listed))
    few = [name for name, words in aliases.items() if len(words) < 2]
    assert few == [], "give each of these two search_aliases or more in its schema, behind the description"


@pytest.mark.parametrize(
    ("word", "node"),
    [
        ("animate", "MagicVideo_Apply"),
        ("video", "MagicVideo_Apply"),
        ("motion", "MagicVideo_LoadAdaptor"),
        ("loop", "MagicVideo_ExpandLatent"),
        ("consistent", "MagicVideo_DirectedAttention"),
        ("flicker", "MagicVideo_DirectedAttention"),
    ],
)
def test_words_that_people_search_for_lead_to_few_nodes(listed: dict[str, Any], word: str, node: str) -> None:
    """The page shows nodes that have the very word first."""
    named = [name for name, entry in listed.items() if word in search_words(entry)]
    assert node in named or "search_aliases" not in listed[node], f"{node} must have {word!r} among its search_aliases"
    assert len(named) <= 3, f"{word!r} may lead to three nodes at most: give the new one another of search_aliases"


def test_nothing_is_found_by_words_for_what_the_pack_does_not_do(listed: dict[str, Any]) -> None:
    assert [name for name, entry in listed.items() if "interpolate" in search_words(entry)] == []


def test_a_run_leaves_the_seeds_of_adaptors_as_they_are(listed: dict[str, Any]) -> None:
    """Another seed would be another adaptor, and a training that is wired to it would begin anew."""
    for name in ("MagicVideo_NewAdaptor", "MagicVideo_CalibrateAdaptor"):
        # The oldest host's page knows no choice here.
        assert listed[name]["input"]["required"]["seed"][1]["control_after_generate"] in ("fixed", True)
    assert listed["MagicVideo_FrameNoise"]["input"]["required"]["noise_seed"][1]["control_after_generate"] is True


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_nodes_stand_in_one_menu_whose_parts_have_names(listed: dict[str, Any], language: str) -> None:
    places = {node["category"] for node in listed.values()}
    parts = ("", "/adaptors", "/motion modules", "/without training")
    assert places == {f"magicvideo{part}" for part in parts}
    told = json.loads((PACK / "locales" / language / "main.json").read_text(encoding="utf-8"))["nodeCategories"]
    assert set(told) == {part for place in places for part in place.split("/")} and all(told.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_and_input_has_words_in_each_language(listed: dict[str, Any], language: str) -> None:
    told = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert {name for name, node in told.items() if node["display_name"] and node["description"]} == set(listed)
    for name, node in listed.items():
        inputs = {key for group in ("required", "optional") for key in node["input"].get(group, {})}
        complete = {key for key, words in told[name]["inputs"].items() if words["name"] and words["tooltip"]}
        assert complete == inputs, f"{name} in {language}"


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_choice_has_a_name_in_each_other_language(listed: dict[str, Any], language: str) -> None:
    told = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, node in listed.items():
        for key, spec in (node["input"].get("required", {}) | node["input"].get("optional", {})).items():
            choices = spec[1].get("options") if spec[0] == "COMBO" else None
            if choices is not None and not key.endswith("_name"):  # those are files
                named = told[name]["inputs"][key]["options"]
                assert list(named) == choices and all(value in text for value, text in named.items())


def test_the_english_words_are_those_of_the_nodes(listed: dict[str, Any]) -> None:
    told = json.loads((PACK / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, node in listed.items():
        assert (told[name]["display_name"], told[name]["description"]) == (node["display_name"], node["description"])
        for group in ("required", "optional"):
            for key, spec in node["input"].get(group, {}).items():
                assert told[name]["inputs"][key]["tooltip"] == spec[1]["tooltip"], f"{key} of {name}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_where_the_page_looks_for_it(
    server: HostServer, listed: dict[str, Any], language: str
) -> None:
    for node in listed:
        # The page asks for the language first, then for the page that serves every other language.
        page = f"{node}/{language}.md" if language != "en" else f"{node}.md"
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/extensions/{PACK_NAME}/docs/{page}") as answer:
            assert answer.headers.get_content_type() != "text/html", "the page takes that for a missing file"
            assert len(answer.read()) > 200, f"the help page of {node} is nearly empty"


def test_the_template_browser_lists_our_workflows(server: HostServer) -> None:
    ours = {path.stem for path in (PACK / "workflows").glob("*.json")}
    assert ours
    assert set(server.get("/workflow_templates")[PACK_NAME]) == ours


def test_the_server_logged_no_trouble_with_the_pack(server: HostServer) -> None:
    about_us = [line for line in server.log().splitlines() if PACK_NAME in line]
    assert [line for line in about_us if "FAILED" in line or "Error" in line] == []
