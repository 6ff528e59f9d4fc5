"""The real server with the page that it was made with, in a real browser, headless."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from page import Page, frontend_flags, launch
from playwright.sync_api import Browser, sync_playwright
from served_models import WEB_PAGE, link_asked_for, link_demo_models, link_models, make_adaptor

from magicvideo.tools.draw_clip import CLIP
from magicvideo.tools.host_server import PACK, HostServer
from magicvideo.tools.prompt_edits import read_prompt
from workflow_input import make_input_files

PROMPTS = [read_prompt(path) for path in sorted((PACK / "workflows" / "api").glob("*.json"))]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    """With all that the workflows ask for: the demo's models, all else made of random numbers."""
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH must name a ComfyUI; bash bin/test sets it")
    comfyui = Path(os.environ["COMFYUI_PATH"])
    base = tmp_path_factory.mktemp("base")
    link_models(base)
    link_demo_models(base)
    link_asked_for(base, PROMPTS)
    for prompt in PROMPTS:
        make_input_files(prompt, base / "input")
    (base / "input" / CLIP.name).unlink()  # a template brings it along
    (base / "models" / "magicvideo" / WEB_PAGE).write_text("<!doctype html><html></html>")
    # Otherwise the page opens the template browser by itself, at a moment that no test can know.
    (base / "user" / "default").mkdir(parents=True)
    (base / "user" / "default" / "comfy.settings.json").write_text('{"Comfy.TutorialCompleted": true}')
    flags = ("--cpu", "--preview-method", "latent2rgb", *frontend_flags(comfyui))
    with HostServer(comfyui, base, flags=flags) as running:
        make_adaptor(running)
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


def opened(server: HostServer, browser: Browser) -> Page:
    # Screenshots are for people: bin/test leaves them here, a folder for each version.
    pictures = PACK / ".demo" / "screenshots" / server.comfyui.name
    return Page(browser, f"http://127.0.0.1:{server.port}", pictures)


@pytest.fixture(scope="module")
def shared(server: HostServer, browser: Browser) -> Iterator[Page]:
    """One page for all tests of a file, as a person stays on it. What went wrong on it is in its `troubles`."""
    one = opened(server, browser)
    yield one
    one.close()


@pytest.fixture
def fresh_page(server: HostServer, browser: Browser) -> Iterator[Page]:
    """The same server, seen by a browser that has never been there."""
    one = opened(server, browser)
    yield one
    one.close()
    assert one.troubles == []


@pytest.fixture
def page(shared: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Nothing may go wrong on it that has to do with the pack, and a screenshot of the end is kept."""
    shared.troubles.clear()
    yield shared
    shared.picture(request.node.name.removeprefix("test_"))
    shared.close_dialogs()
    assert shared.troubles == []
