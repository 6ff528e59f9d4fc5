"""What bin/demo makes of the shipped workflow."""

import copy

from magicvideo.tools.host_server import PACK
from magicvideo.tools.prompt_edits import (
    nodes_of,
    read_prompt,
    with_adaptor_file,
    with_animated_picture,
    with_enlarged,
    with_text,
)
from workflow_input import with_at_most

PROMPT = read_prompt(PACK / "workflows" / "api" / "text_to_video.json")


def test_the_adaptor_comes_from_the_file_and_whoever_used_the_new_one_gets_it() -> None:
    changed = with_adaptor_file(PROMPT, "mine.safetensors")
    (number,) = nodes_of(changed, "MagicVideo_LoadAdaptor")
    assert changed[number]["inputs"] == {"adaptor_name": "mine.safetensors"}
    assert not nodes_of(changed, "MagicVideo_NewAdaptor")
    (apply,) = nodes_of(changed, "MagicVideo_Apply")
    assert changed[apply]["inputs"]["adaptor"] == [number, 0]


def test_video_and_animated_picture_show_the_enlarged_frames() -> None:
    changed = with_animated_picture(with_enlarged(PROMPT, 512), "clip", 8)
    (scale,) = nodes_of(changed, "ImageScale")
    (decode,) = nodes_of(changed, "VAEDecode")
    assert changed[scale]["inputs"]["image"] == [decode, 0] and changed[scale]["inputs"]["width"] == 512
    for user in ("CreateVideo", "SaveAnimatedWEBP"):
        (number,) = nodes_of(changed, user)
        assert changed[number]["inputs"]["images"] == [scale, 0]


def test_the_text_goes_where_the_sampler_takes_its_positive_prompt_from() -> None:
    changed = with_text(PROMPT, "a fish")
    (sampler,) = nodes_of(changed, "KSampler")
    texts = {side: changed[changed[sampler]["inputs"][side][0]]["inputs"]["text"] for side in ("positive", "negative")}
    assert texts["positive"] == "a fish" != texts["negative"]


def test_limits_lower_what_is_above_them_and_nothing_else() -> None:
    (latent,) = nodes_of(PROMPT, "EmptyLatentImage")
    sizes = {**PROMPT[latent]["inputs"], "width": 48, "height": 256, "batch_size": [latent, 0]}
    prompt = {latent: {"class_type": "EmptyLatentImage", "inputs": sizes}}
    changed = with_at_most(prompt, width=64, height=64, batch_size=8)
    assert changed[latent]["inputs"] == {"width": 48, "height": 64, "batch_size": [latent, 0]}


def test_the_shipped_workflow_itself_stays_as_it_is() -> None:
    before = copy.deepcopy(PROMPT)
    with_adaptor_file(PROMPT, "mine.safetensors"), with_enlarged(PROMPT, 512), with_animated_picture(PROMPT, "a", 8)
    assert before == PROMPT
