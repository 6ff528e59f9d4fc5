"""The shipped workflow files: the form for the page and the form for the server say the same.  No host is needed."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pack import ROOT

from magicvideo.tools.draw_clip import CLIP, FRAMES, SIDE, draw_clip
from magicvideo.tools.templates import TITLES, WORKFLOWS, page_form, server_form

NAMES = tuple(TITLES)
NOTES = {"MarkdownNote", "Note"}
# Workflows of other people store values by position, so this order never changes; new inputs go to the end.
INPUTS = {
    "MagicVideo_LoadAdaptor": ["adaptor_name"],
    "MagicVideo_NewAdaptor": ["model", "frames", "rank", "init", "seed", "attention_at"],
    "MagicVideo_Apply": [
        "model",
        "adaptor",
        "strength",
        "fps",
        "frames_per_clip",
        "start_percent",
        "end_percent",
        "order",
        "chunk",
        "later_cfg",
        "history_noise",
    ],
    "MagicVideo_CausalWindows": ["model", "chunk_frames", "offload_past"],
    "MagicVideo_ExpandLatent": ["latent", "frames", "frames_per_clip", "keep_given", "ping_pong"],
    "MagicVideo_Train": [
        "model",
        "clip",
        "vae",
        "name",
        "clips_folder",
        "steps",
        "frames",
        "width",
        "height",
        "learning_rate",
        "base_tuning",
        "seed",
        "fps",
        "adaptor",
        "images",
        "videos",
        "latents",
        "captions",
        "conditioning",
        "settings",
        "motion_module",
        "prompts",
        "train",
    ],
    "MagicVideo_SaveAdaptor": ["adaptor", "filename_prefix", "title", "author", "trigger_words", "license"],
    "MagicVideo_DirectedAttention": [
        "model",
        "look_back",
        "last_frames",
        "where",
        "strength",
        "start_percent",
        "end_percent",
        "frames_per_clip",
    ],
    "MagicVideo_AlignFrames": ["model", "at", "strength", "start_percent", "end_percent", "frames_per_clip"],
    "MagicVideo_CalibrateAdaptor": ["model", "latent", "positive", "steps", "seed", "adaptor"],
    "MagicVideo_FrameNoise": ["noise_seed", "share", "kind", "frames_per_clip"],
    "MagicVideo_LoadMotionModule": ["module_name"],
    "MagicVideo_LoadMotionLoRA": ["motion_module", "lora_name", "strength"],
    "MagicVideo_ApplyMotionModule": [
        "model",
        "motion_module",
        "strength",
        "noise_schedule",
        "group_norm",
        "key_scale",
        "frames_per_clip",
        "start_percent",
        "end_percent",
    ],
}
# Values that the page keeps behind a widget's own, and that the server never gets.
AFTER_WIDGET = dict.fromkeys(("seed", "noise_seed"), {"fixed", "randomize", "increment", "decrement"})
# Its seed stays as it is: another one would begin another run.
FIXED_SEED = {"MagicVideo_Train"}
PAGE_ONLY = {"upload"}
TITLE_HEIGHT = 30

Workflow = dict[str, Any]
Box = tuple[float, float, float, float]


def read(path: Path) -> Workflow:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def page(name: str) -> Workflow:
    """The form that the page opens."""
    return read(page_form(name))


@pytest.fixture
def prompt(name: str) -> Workflow:
    """The form that the server runs."""
    return read(server_form(name))


def nodes_of(page: Workflow) -> dict[int, Workflow]:
    """Nodes by id, without the notes."""
    return {node["id"]: node for node in page["nodes"] if node["type"] not in NOTES}


def widget_values(node: Workflow) -> dict[str, object]:
    """Widget values by name; what only the page needs is checked and left out."""
    left = list(node["widgets_values"])
    values = {}
    for row in node["inputs"]:
        if "widget" in row:
            value = left.pop(0)
            if row["name"] not in PAGE_ONLY and row["link"] is None:
                values[row["name"]] = value
            if row["name"] in AFTER_WIDGET and node["type"] not in FIXED_SEED:
                assert left.pop(0) in AFTER_WIDGET[row["name"]], f"{node['type']}: nothing behind {row['name']}"
    assert left == [], f"{node['type']} has more values than widgets"
    return values


def is_link(value: object) -> bool:
    return isinstance(value, list)


def test_exactly_these_workflows_are_shipped_and_each_has_both_forms() -> None:
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == sorted(TITLES.values())
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == sorted(TITLES)


def test_names_in_the_template_browser_are_titles_in_the_order_in_which_a_person_needs_them() -> None:
    """First what needs no training, then training, then with an adaptor, long clips last; then the demo's."""
    titles = list(TITLES.values())
    assert titles == sorted(titles) and len(set(title[3:] for title in titles)) == len(titles)
    for title in titles:
        assert re.fullmatch(r"\d\d [A-Z][A-Za-z0-9 ,]+", title) and len(title) <= 45
    kinds = [kind_of(name) for name in TITLES]
    assert kinds == sorted(kinds, key=["nothing trained", "training", "adaptor", "demo"].index)
    long = [name.startswith("long_video") for name, kind in zip(TITLES, kinds, strict=True) if kind == "adaptor"]
    assert long == sorted(long)


def kind_of(name: str) -> str:
    types = types_of(read(server_form(name)))
    if name.startswith("demo_"):
        return "demo"
    if "MagicVideo_Train" in types:
        return "training"
    return "adaptor" if "MagicVideo_Apply" in types else "nothing trained"


def test_both_forms_have_the_same_nodes(page: Workflow, prompt: Workflow) -> None:
    on_page = Counter(node["type"] for node in nodes_of(page).values())
    assert on_page == Counter(node["class_type"] for node in prompt.values())


def test_both_forms_have_the_same_widget_values(page: Workflow, prompt: Workflow) -> None:
    for number, node in nodes_of(page).items():
        told = {key: value for key, value in prompt[str(number)]["inputs"].items() if not is_link(value)}
        assert widget_values(node) == told, f"{node['type']} {number}"


def test_both_forms_have_the_same_links(page: Workflow, prompt: Workflow) -> None:
    nodes = nodes_of(page)
    on_page = {(nodes[end]["inputs"][slot]["name"], end, start, out) for _, start, out, end, slot, _ in page["links"]}
    told = {
        (key, int(number), int(value[0]), value[1])
        for number, node in prompt.items()
        for key, value in node["inputs"].items()
        if is_link(value)
    }
    assert on_page == told


def test_links_of_the_server_form_name_nodes_by_text(prompt: Workflow) -> None:
    for node in prompt.values():
        for value in filter(is_link, node["inputs"].values()):
            assert isinstance(value[0], str) and value[0] in prompt and isinstance(value[1], int)


def test_both_forms_have_the_same_titles(page: Workflow, prompt: Workflow) -> None:
    for number, node in nodes_of(page).items():
        assert node["title"] == prompt[str(number)]["_meta"]["title"]


def test_both_ends_of_each_link_exist_and_agree_on_its_type(page: Workflow) -> None:
    nodes = nodes_of(page)
    for link, start, out, end, slot, kind in page["links"]:
        source, target = nodes[start]["outputs"][out], nodes[end]["inputs"][slot]
        assert link in source["links"] and target["link"] == link
        assert source["type"] == target["type"] == kind


def test_every_link_that_a_node_names_is_in_the_list_of_links(page: Workflow) -> None:
    named = [row["link"] for node in page["nodes"] for row in node["inputs"] if row["link"] is not None]
    leaving = [link for node in page["nodes"] for row in node["outputs"] for link in row["links"] or []]
    assert sorted(named) == sorted(leaving) == sorted(link[0] for link in page["links"])


def test_ids_are_unique_and_not_above_the_last_one_noted(page: Workflow) -> None:
    for ids, last in (
        ([node["id"] for node in page["nodes"]], page["last_node_id"]),
        ([link[0] for link in page["links"]], page["last_link_id"]),
    ):
        assert len(set(ids)) == len(ids) and max(ids) <= last


def test_nodes_are_ordered_so_that_each_comes_behind_what_it_needs(page: Workflow) -> None:
    order = {node["id"]: node["order"] for node in page["nodes"]}
    assert len(set(order.values())) == len(order)
    assert all(order[start] < order[end] for _, start, _, end, _, _ in page["links"])


def test_our_nodes_have_their_inputs_in_the_fixed_order(page: Workflow, prompt: Workflow) -> None:
    ours = [node for node in nodes_of(page).values() if node["type"].startswith("MagicVideo_")]
    assert ours
    for node in ours:
        assert [row["name"] for row in node["inputs"]] == INPUTS[node["type"]]
        unconnected = {row["name"] for row in node["inputs"] if "widget" not in row and row["link"] is None}
        told = [name for name in INPUTS[node["type"]] if name not in unconnected]
        assert list(prompt[str(node["id"])]["inputs"]) == told


def types_of(prompt: Workflow) -> set[str]:
    return {node["class_type"] for node in prompt.values()}


def test_the_clip_is_saved_at_the_frame_rate_of_the_motion_or_else_of_the_source(prompt: Workflow) -> None:
    (rate,) = (node["inputs"]["fps"] for node in prompt.values() if node["class_type"] == "CreateVideo")
    if "MagicVideo_Apply" in types_of(prompt):
        assert is_link(rate) and (prompt[rate[0]]["class_type"], rate[1]) == ("MagicVideo_Apply", 1)
    elif "EmptyLatentImage" in types_of(prompt):  # a motion module, which was trained at one frame rate
        assert rate == 8.0
    else:
        assert is_link(rate) and prompt[rate[0]]["class_type"] == "GetVideoComponents"


def test_a_frame_rate_is_set_in_one_place_or_is_the_adaptors_own(prompt: Workflow) -> None:
    """At 0 an adaptor's own is taken. What the trainer has is the rate of pictures, and not of a video."""
    rates = {key: node["inputs"]["fps"] for key, node in prompt.items() if "fps" in node["inputs"]}
    assert len([rate for rate in rates.values() if not is_link(rate) and rate]) <= 1
    for rate in filter(is_link, rates.values()):
        assert (prompt[rate[0]]["class_type"], rate[1]) in {("MagicVideo_Apply", 1), ("GetVideoComponents", 2)}


def test_the_clip_that_templates_begin_with_comes_along_and_is_long_enough() -> None:
    """`web/page.js` takes it to the input files of whoever opens one of them."""
    assert f'const CLIP = "{CLIP.name}"\n' in (ROOT / "web" / "page.js").read_text(encoding="utf-8")
    prompts = [read(server_form(name)) for name in NAMES]
    asking = [prompt for prompt in prompts if CLIP.name in [node["inputs"].get("file") for node in prompt.values()]]
    assert len(asking) == 4
    for prompt in asking:
        (length,) = (node["inputs"]["length"] for node in prompt.values() if "length" in node["inputs"])
        assert length <= FRAMES
    assert CLIP.parent == ROOT / "web" and CLIP.stat().st_size < 100_000


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_clip_is_the_one_that_the_tool_draws(tmp_path: Path) -> None:
    draw_clip(tmp_path / CLIP.name)
    drawn, kept = frames_of(tmp_path / CLIP.name), frames_of(CLIP)
    assert kept.shape == (FRAMES, SIDE, SIDE, 3) == drawn.shape
    assert np.abs(drawn.astype(int) - kept).mean() < 1  # encoders differ


def test_one_template_asks_for_a_checkpoint_and_for_nothing_else() -> None:
    prompt = read(server_form("video_to_video"))
    assert {kind for kind in types_of(prompt) if "Load" in kind} == {"CheckpointLoaderSimple", "LoadVideo"}


def test_a_note_says_what_is_not_trained_and_what_follows_from_that(
    page: Workflow, prompt: Workflow, name: str
) -> None:
    text = " ".join(node["widgets_values"][0] for node in page["nodes"] if node["type"] in NOTES)
    if name.startswith("demo_"):  # all is trained, and must be there
        assert "bash bin/demo" in text and "magicvideo_demo.safetensors" in text
        return
    if "MagicVideo_ApplyMotionModule" in types_of(prompt):
        assert "tested with random weights" in text and "animatediff_models" in text
        return
    assert "Load MagicVideo Adaptor" in text
    if "MagicVideo_DirectedAttention" in types_of(prompt):
        assert "nothing trained" in text and "From text alone, frames stay separate pictures" in text
    else:
        assert "untrained" in text


def test_each_listed_model_file_is_the_one_that_its_node_loads(page: Workflow) -> None:
    for node in nodes_of(page).values():
        for model in node["properties"].get("models", []):
            assert set(model) == {"name", "url", "directory"}
            assert model["name"] in node["widgets_values"] and model["name"] in model["url"]


def test_no_workflow_names_a_file_by_an_absolute_path(prompt: Workflow, page: Workflow) -> None:
    values = [value for node in prompt.values() for value in node["inputs"].values()]
    values += [value for node in page["nodes"] for value in node["widgets_values"]]
    absolute = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")
    assert [value for value in values if isinstance(value, str) and absolute.match(value)] == []


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def test_nothing_lies_on_anything_else_on_the_page(page: Workflow) -> None:
    boxes = {}
    for node in page["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        boxes[node["id"]] = (x, y - TITLE_HEIGHT, width, height + TITLE_HEIGHT)
    groups = {group["title"]: tuple(group["bounding"]) for group in page["groups"]}
    for items in (boxes, groups):
        pairs = [(a, b) for a in items for b in items if a != b]
        assert [pair for pair in pairs if overlap(items[pair[0]], items[pair[1]])] == []


def test_every_node_lies_inside_one_group(page: Workflow) -> None:
    for node in nodes_of(page).values():
        (x, y), (width, height) = node["pos"], node["size"]
        inside = [
            group["title"]
            for group in page["groups"]
            if group["bounding"][0] <= x
            and group["bounding"][1] <= y - TITLE_HEIGHT
            and x + width <= group["bounding"][0] + group["bounding"][2]
            and y + height <= group["bounding"][1] + group["bounding"][3]
        ]
        assert len(inside) == 1, node["type"]
