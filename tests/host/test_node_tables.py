"""Tables of nodes in README and CONTRIBUTING, and what the page on effects says of words, against the schemas."""

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from comfy_api.latest import io
from shipped import read

from magicvideo.nodes import MagicVideoExtension

pytestmark = pytest.mark.on_newest

NAME = re.compile(r"`(\w+)`")


@pytest.fixture(scope="module")
def schemas() -> list[io.Schema]:
    """Those of all nodes, in the order of their list."""
    return [node.define_schema() for node in asyncio.run(MagicVideoExtension().get_node_list())]


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, row by row, without its head."""
    _, _, text = read(Path(page)).partition(f"\n{heading}\n")
    (rows,) = re.findall(r"\A(?:(?!\|).*\n)*((?:\|.*\n)+)", text)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()[2:]]


@pytest.fixture(scope="module")
def told() -> dict[str, list[str]]:
    """README's table: what a node takes, gives and is for, by its name."""
    return {name: cells for name, *cells in table("README.md", "## Nodes")}


def test_readme_names_every_node_in_their_order(schemas: list[io.Schema], told: dict[str, list[str]]) -> None:
    assert list(told) == [schema.display_name for schema in schemas]


def test_readme_names_the_inputs_of_every_node(schemas: list[io.Schema], told: dict[str, list[str]]) -> None:
    """All of them in their order; where a row sums up the rest in plain words, those before it."""
    for schema in schemas:
        takes, inputs = told[schema.display_name][0], [given.id for given in schema.inputs]
        named, in_words = NAME.findall(takes), [part for part in takes.split(", ") if not NAME.fullmatch(part)]
        assert named == (inputs[: len(named)] if in_words else inputs), f"inputs of {schema.display_name} in README"
        assert not in_words or 0 < len(named) < len(inputs)


def test_readme_names_the_outputs_of_every_node(schemas: list[io.Schema], told: dict[str, list[str]]) -> None:
    for schema in schemas:
        names = [(given.display_name or given.io_type).lower().replace("_", " ") for given in schema.outputs]
        assert told[schema.display_name][1] == (", ".join(names) or "a file"), f"{schema.display_name} in README"


def test_ids_that_do_not_follow_from_names_are_told(schemas: list[io.Schema]) -> None:
    def follows(schema: io.Schema) -> bool:
        return schema.node_id == "MagicVideo_" + re.sub(r"MagicVideo|\W", "", schema.display_name)

    listed = {NAME.findall(of_node)[0]: name for of_node, name, *_ in table("CONTRIBUTING.md", "### Ids")}
    assert listed == {schema.node_id: schema.display_name for schema in schemas if not follows(schema)}


def test_the_page_on_effects_says_how_many_nodes_scarce_words_lead_to(schemas: list[io.Schema]) -> None:
    said = re.findall(r"`(\w+)` (\d)", read(Path("docs/add_an_effect.md")))
    leads_to = Counter(word for schema in schemas for word in schema.search_aliases)
    assert len(said) == 6 and {word: int(number) for word, number in said} == {word: leads_to[word] for word, _ in said}
