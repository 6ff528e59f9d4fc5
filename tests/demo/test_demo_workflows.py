"""The demo model's workflows: what is shipped is what the maker writes from the pack's own."""

import json

import pytest

from magicvideo.demo.wishes import PROMPT
from magicvideo.demo.world.words import check_prompt
from magicvideo.tools.demo_workflows import MAKERS, files_of
from magicvideo.tools.templates import WORKFLOWS, server_form


@pytest.mark.parametrize("name", MAKERS)
def test_the_files_are_those_that_the_maker_writes(name: str) -> None:
    for path, text in files_of(name).items():
        shipped = path.read_text(encoding="utf-8")
        assert shipped == text, f"{path.name} is of an older state: bash bin/run tools/demo_workflows.py writes it"


def test_every_workflow_for_the_demo_model_has_a_maker() -> None:
    assert {path.stem for path in (WORKFLOWS / "api").glob("demo_*.json")} == {f"demo_{name}" for name in MAKERS}


def test_the_prompt_is_one_that_the_demo_model_knows() -> None:
    assert check_prompt(PROMPT) == []


@pytest.mark.parametrize("name", MAKERS)
def test_none_asks_for_a_file_that_is_not_there(name: str) -> None:
    prompt = json.loads(server_form(f"demo_{name}").read_text(encoding="utf-8"))
    types = {node["class_type"] for node in prompt.values()}
    assert types.isdisjoint({"LoadImage", "LoadVideo", "LoraLoader", "ControlNetLoader", "MagicVideo_NewAdaptor"})
    names = {node["inputs"][key] for node in prompt.values() for key in node["inputs"] if key.endswith("_name")}
    assert names <= {"magicvideo_demo.safetensors"} | {
        node["inputs"]["sampler_name"] for node in prompt.values() if "sampler_name" in node["inputs"]
    }
