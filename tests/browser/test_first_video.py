"""The clicks of README's "First video" in a ComfyUI without models, with the demo's for a checkpoint."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from pack import ROOT
from page import Page, frontend_flags
from playwright.sync_api import Browser

from magicvideo.demo.model.demo_models import CHECKPOINT
from magicvideo.tools.host_server import PACK, PACK_NAME, HostServer
from magicvideo.tools.templates import TITLES

SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## First video\n")[2].partition("\n## ")[0]
STEPS = re.findall(r"^\d\. (.+)$", SECTION, re.MULTILINE)
(COMMAND,) = re.findall(r"^```bash\n(.+)\n```", SECTION, re.MULTILINE)
CHOICES = """name => {
    const loader = app.graph._nodes.find(node => node.type === "CheckpointLoaderSimple")
    return loader.widgets.find(widget => widget.name === name).options.values
}"""
PLAYING = """() => [...document.querySelectorAll("video")].some(video =>
    !video.paused && video.muted && video.loop && video.currentTime > 0 && video.src.includes("type=output"))"""


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[HostServer]:
    """With the pack among its custom nodes, and no model and no input file."""
    comfyui = Path(os.environ["COMFYUI_PATH"])
    (tmp_path / "models").mkdir()
    (tmp_path / "user" / "default").mkdir(parents=True)
    (tmp_path / "user" / "default" / "comfy.settings.json").write_text('{"Comfy.TutorialCompleted": true}')
    with HostServer(comfyui, tmp_path, flags=("--cpu", *frontend_flags(comfyui))) as running:
        yield running


def test_the_steps_are_those_that_are_clicked_here() -> None:
    assert STEPS == [
        "Install the pack, put an SD1.5 checkpoint into `ComfyUI/models/checkpoints`, and start ComfyUI again.",
        f"Press *Templates* at the left, and choose **{PACK_NAME}**.",
        f"Click **{TITLES['video_to_video']}**.",
        "Choose your checkpoint in *Load Checkpoint*.",
        "Press *Run*. The clip plays in *Save Video*, and is a file in `ComfyUI/output/magicvideo`.",
    ]
    assert f"**{TITLES['demo_text_to_video']}**" in SECTION and "Press R" in SECTION


@pytest.mark.on_newest
@pytest.mark.smoke
@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH must name a ComfyUI; bash bin/test sets it")
def test_a_few_clicks_lead_from_an_installed_pack_to_a_moving_picture(new_server: HostServer, browser: Browser) -> None:
    page = Page(browser, f"http://127.0.0.1:{new_server.port}", PACK / ".demo" / "screenshots" / "first")
    try:
        # With no model at hand: the command as it stands, with the Python that runs ComfyUI.
        words = COMMAND.split()
        subprocess.run([sys.executable, *words[1:]], cwd=new_server.base, check=True)
        page.tab.mouse.click(800, 700)
        page.tab.keyboard.press("r")
        # 2 and 3
        page.tab.get_by_role("button", name=re.compile("^Templates")).first.click()
        dialog = page.tab.get_by_role("dialog")
        dialog.get_by_role("button", name=PACK_NAME).click()
        page.template_card(dialog, "video_to_video").click()
        page.wait("app.graph._nodes.some(node => node.type.startsWith('MagicVideo_'))")
        page.tab.wait_for_timeout(1000)
        page.picture("opened")
        # 4
        assert CHECKPOINT in page.run(CHOICES, "ckpt_name")
        page.set_widgets("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
        page.set_widgets(width=64, height=64, steps=2, length=4)  # a processor has other things to do
        # 5
        seen = page.queue()
        assert seen["failed"] is None
        page.wait(PLAYING)
        page.picture("played")
        (file,) = (new_server.output / "magicvideo").glob("*.mp4")
        with av.open(str(file)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 4 and (frames[0] != frames[-1]).any()
        assert page.troubles == []
    finally:
        page.close()
