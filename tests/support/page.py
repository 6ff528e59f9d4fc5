"""The real web page of a running ComfyUI in a real Chromium, and what a person does on it."""

import re
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Playwright, Response, TimeoutError, expect
from playwright.sync_api import Page as Tab

from magicvideo.tools.host_server import PACK, PACK_NAME
from magicvideo.tools.page_layout import WINDOW
from magicvideo.tools.templates import TITLES

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")  # as in bin/setup
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECOND = 1000
# Seconds; more than a run ever takes on a quiet machine, because a busy one takes several times as long.
LONGEST_RUN = 300

# Sets widgets by name on all nodes, or on those of one type, as somebody who types into them does.
SET_WIDGETS = """([type, values]) => {
    for (const node of app.graph._nodes.filter(node => !type || node.type === type))
        for (const widget of node.widgets ?? [])
            if (widget.name in values) { widget.value = values[widget.name]; widget.callback?.(widget.value) }
}"""
# What a file that is dragged from the desktop onto the canvas gives the page.
DROP = """async ([url, name, type]) => {
    const data = new DataTransfer()
    data.items.add(new File([await (await fetch(url)).blob()], name, { type }))
    const place = { bubbles: true, cancelable: true, clientX: 800, clientY: 900, dataTransfer: data }
    const canvas = document.querySelector("#graph-canvas")
    canvas.dispatchEvent(new DragEvent("dragover", place))
    canvas.dispatchEvent(new DragEvent("drop", place))
}"""
# Every preview that the server sends while a prompt runs, decoded as the browser would show it.
WATCH = """async () => {
    window.seen = { previews: [], broken: 0, progress: [], ended: 0, failed: null }
    const { api } = window.comfyAPI.api
    if (window.watching) return
    window.watching = true
    api.addEventListener("b_preview", event => createImageBitmap(event.detail)
        .then(picture => seen.previews.push([picture.width, picture.height]))
        .catch(() => { seen.broken += 1 }))
    api.addEventListener("progress", event => seen.progress.push([event.detail.value, event.detail.max]))
    api.addEventListener("execution_success", () => { seen.ended += 1 })
    api.addEventListener("execution_error", event => { seen.failed = event.detail.exception_message })
}"""
OPEN_TEMPLATE = """async ([pack, title]) => {
    const { api } = window.comfyAPI.api
    const graph = await (await fetch(api.apiURL(`/workflow_templates/${pack}/${title}.json`))).json()
    await app.loadGraphData(graph, true, true, title, { openSource: "template" })
}"""
# Whether a graph of the pack has come: the page has one of its own, which may come late.
OURS = "app.graph._nodes.some(node => node.type.startsWith('MagicVideo_'))"
# A graph without what differs each time it is loaded: places are rounded, and links may be numbered anew.
GRAPH = """() => {
    const graph = app.graph.serialize()
    const type = Object.fromEntries(graph.nodes.map(node => [node.id, node.type]))
    return {
        nodes: graph.nodes.map(node => [String(node.id), node.type, node.title ?? null, node.widgets_values ?? []])
            .sort((a, b) => a[0].localeCompare(b[0])),
        links: graph.links.map(([, start, out, end, slot]) => [type[start], out, type[end], slot].join(" ")).sort(),
        groups: graph.groups.map(group => group.title).sort(),
    }
}"""


def frontend_flags(comfyui: Path) -> tuple[str, ...]:
    """What a host must be started with to show the page that it was made with, not the newest that is installed."""
    requirements = (comfyui / "requirements.txt").read_text(encoding="utf-8")
    (wanted,) = re.findall(r"^comfyui-frontend-package==(\S+)", requirements, re.MULTILINE)
    from importlib.metadata import version

    if version("comfyui-frontend-package") == wanted:
        return ()
    root = PACK / ".hosts" / "frontends" / wanted
    assert (root / "index.html").is_file(), f"{root} is missing: bash bin/setup --browser {comfyui.name} fetches it"
    return ("--front-end-root", str(root))


def launch(playwright: Playwright) -> Browser:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "Chromium is missing: bash bin/setup --browser installs it, or says how"
    return playwright.chromium.launch(executable_path=found, args=list(FLAGS))


expect.set_options(timeout=30 * SECOND)


class Page:
    """One tab with a profile of its own."""

    def __init__(self, browser: Browser, address: str, pictures: Path) -> None:
        self.address, self.pictures = address, pictures
        self.tab: Tab = browser.new_context(viewport=dict(zip(("width", "height"), WINDOW, strict=True))).new_page()
        self.tab.set_default_timeout(60 * SECOND)
        self.troubles: list[str] = []
        self.warnings: list[str] = []  # of the page too
        self.tab.on("console", self._note_message)
        self.tab.on("response", self._note_answer)
        self.tab.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.open()

    def _note_message(self, message: ConsoleMessage) -> None:
        # The page has errors of its own, for instance about services that it may not reach. These are not ours.
        about_us = PACK_NAME.lower() in message.text.lower() or "MagicVideo_" in message.text
        if message.type in ("error", "warning"):
            self.warnings.append(f"{message.text} ({message.location.get('url', '')})")
            if about_us and "Content Security Policy" not in message.text:
                self.troubles.append(message.text)

    def _note_answer(self, answer: Response) -> None:
        if answer.status >= 400 and f"/{PACK_NAME}/" in answer.url:
            self.troubles.append(f"{answer.status} {answer.url}")

    def open(self) -> None:
        self.tab.goto(self.address)
        self.wait("window.app?.graph && app.extensionManager && window.comfyAPI?.api")
        self.tab.wait_for_timeout(2 * SECOND)  # the page then restores what was open before

    def close_dialogs(self) -> None:
        dialog = self.tab.get_by_role("dialog").last
        while dialog.count():
            dialog.press("Escape")
            try:
                dialog.wait_for(state="detached", timeout=2 * SECOND)
            except TimeoutError:  # in older pages some have only a button for it, their first
                dialog.get_by_role("button").first.click()
                dialog.wait_for(state="detached")

    def run(self, script: str, argument: object = None) -> Any:  # noqa: ANN401 - whatever the script returns
        return self.tab.evaluate(script, argument)

    def wait(self, condition: str, argument: object = None, seconds: float = 60) -> None:
        self.tab.wait_for_function(condition, arg=argument, timeout=seconds * SECOND)

    def resize(self, window: tuple[int, int]) -> None:
        """Makes the window so many pixels wide and high, and waits until the canvas has followed."""
        self.tab.set_viewport_size({"width": window[0], "height": window[1]})
        self.wait("size => app.canvas.canvas.width === size[0] && app.canvas.canvas.height === size[1]", list(window))

    def picture(self, name: str) -> None:
        """A screenshot for people to look at."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=self.pictures / f"{name.replace('/', '_')}.png")

    def command(self, name: str) -> None:
        # Not awaited: some commands end only when the dialog that they open is closed.
        self.run("name => { app.extensionManager.command.execute(name) }", name)

    def templates(self) -> Locator:
        """Opens the template browser on the pack's own page."""
        self.command("Comfy.BrowseTemplates")
        dialog = self.tab.get_by_role("dialog")
        dialog.get_by_role("button", name=PACK_NAME).click()
        # Names that begin so are nobody else's.
        expect(dialog.get_by_test_id(re.compile(r"^template-workflow-\d\d ")).first).to_be_visible()
        return dialog

    def template_card(self, dialog: Locator, name: str) -> Locator:
        """A template in the open browser, scrolled to; the page makes the cards only as somebody comes to them."""
        card = dialog.get_by_test_id(f"template-workflow-{TITLES[name]}")
        last = dialog.get_by_test_id(re.compile("^template-workflow-")).last
        for _ in range(20):
            last.scroll_into_view_if_needed()
            try:
                card.wait_for(timeout=SECOND)
                break
            except TimeoutError:
                continue
        card.scroll_into_view_if_needed()
        return card

    def open_template(self, name: str) -> None:
        self.run("app.graph.clear()")
        self.template_card(self.templates(), name).click()
        self.wait(OURS)
        expect(self.tab.get_by_role("dialog")).to_have_count(0)

    def open_template_file(self, name: str) -> None:
        """Opens a template by what a click on its card calls; the browser of all templates takes long to come."""
        self.run("app.graph.clear()")
        self.run(OPEN_TEMPLATE, [PACK_NAME, TITLES[name]])
        self.wait(OURS)
        self.tab.wait_for_timeout(SECOND // 2)  # the view follows the graph

    def open_graph(self, graph: dict[str, Any]) -> None:
        """Opens a graph as if its file had been chosen."""
        self.run("async graph => { await app.loadGraphData(graph) }", graph)

    def prompt(self) -> dict[str, Any]:
        """What Run would send to the server."""
        return self.run("async () => (await app.graphToPrompt()).output")

    def set_widgets(self, type: str | None = None, **values: object) -> None:
        self.run(SET_WIDGETS, [type, values])

    def queue(self) -> dict[str, Any]:
        """Presses Run and waits for the end: previews and progress on the way, and the failing node's message."""
        self.run(WATCH)
        self.tab.get_by_role("button", name="Run", exact=True).first.click()
        self.wait("seen.ended || seen.failed !== null", seconds=LONGEST_RUN)
        self.tab.wait_for_timeout(500)  # for the picture of the last preview to be decoded
        return self.run("seen")

    def graph(self) -> dict[str, Any]:
        return self.run(GRAPH)

    def videos(self) -> list[str]:
        """Addresses that the page's video elements play from; fails unless each of them decodes and loops."""
        self.wait("[...document.querySelectorAll('video')].some(video => video.readyState >= 2)")
        assert self.run("[...document.querySelectorAll('video')].every(video => !video.error && video.videoWidth > 0)")
        assert self.run("[...document.querySelectorAll('video')].every(video => video.loop)")
        return self.run("[...document.querySelectorAll('video')].map(video => video.currentSrc)")

    def drop(self, path: str, name: str, type: str) -> None:
        """Drops a file of the server onto the canvas."""
        self.run(DROP, [f"{self.address}{path}", name, type])

    def save_as(self, name: str) -> None:
        self.command("Comfy.SaveWorkflowAs")
        box = self.tab.get_by_role("dialog").get_by_role("textbox")
        box.fill(name)
        box.press("Enter")
        expect(self.tab.get_by_role("dialog")).to_have_count(0)

    def open_saved(self, name: str) -> None:
        self.tab.get_by_role("button", name="Workflows").first.click()
        self.tab.get_by_role("treeitem").get_by_text(name).first.click()
        self.wait(OURS)

    def error_text(self) -> str:
        """What the page says of a run that failed; newer pages say it on demand."""
        details = self.tab.get_by_role("button", name="View details")
        told = self.tab.get_by_text("expected a").last
        expect(details.or_(told).first).to_be_visible()
        if details.is_visible():
            details.click()
        expect(told).to_be_visible()
        return told.inner_text()

    def close(self) -> None:
        self.tab.context.close()
