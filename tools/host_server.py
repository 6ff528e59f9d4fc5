"""A real ComfyUI server with this pack in it, for as long as a `with` block lasts; only the standard library is needed.

with HostServer(comfyui, base_directory) as server:
    finished = server.run(prompt)
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from magicvideo.tools.host_in_process import PACK

PACK_NAME = "ComfyUI-MagicVideo"
Prompt = dict[str, dict[str, Any]]


class HostError(RuntimeError):
    """The server did not start, refused a prompt, or a node failed; the message says which."""


@dataclass(frozen=True)
class Finished:
    """What the server's history says of a prompt that has ended."""

    status: str
    messages: list[list[Any]]
    outputs: dict[str, Any]

    def message(self, kind: str) -> dict[str, Any] | None:
        """What the first message of a kind says; None where there is none."""
        return next((content for name, content in self.messages if name == kind), None)

    @property
    def error(self) -> str | None:
        """The failing node's sentence, or None."""
        failed = self.message("execution_error")
        return f"{failed['node_type']}: {failed['exception_message'].strip()}" if failed else None

    @property
    def interrupted(self) -> bool:
        """Whether the prompt was stopped before its end."""
        return self.message("execution_interrupted") is not None

    def files(self) -> list[str]:
        """Names of the files that nodes saved, relative to the output folder."""
        entries = [entry for output in self.outputs.values() for group in output.values() for entry in group]
        saved = [entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "output"]
        return [str(Path(entry["subfolder"], entry["filename"])) for entry in saved]


def link_pack(base: Path) -> None:
    """Makes the pack a custom node of this base directory. A link is enough: the host looks one level deep."""
    link = base / "custom_nodes" / PACK_NAME
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.resolve() != PACK:
        link.unlink()
    if not link.exists():
        link.symlink_to(PACK, target_is_directory=True)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HostServer:
    """A ComfyUI server; it starts on entering the block and stops on leaving it, however it is left.

    ``comfyui`` is the folder of ComfyUI, ``base`` that of models, inputs and the log; results go to ``output``, or a
    folder of that name in ``base``.  ``flags`` are further options of ComfyUI.  Raises HostError when the server does
    not start.
    """

    def __init__(self, comfyui: Path, base: Path, output: Path | None = None, flags: tuple[str, ...] = ()) -> None:
        self.comfyui, self.base = comfyui.resolve(), base.resolve()
        self.output = (output or base / "output").resolve()
        self.log_path = self.base / "server.log"
        self.port = free_port()
        self._flags = flags
        self._log_mark = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "HostServer":
        for folder in (self.base, self.output):
            folder.mkdir(parents=True, exist_ok=True)
        link_pack(self.base)
        command = [sys.executable, "main.py", "--port", str(self.port), "--base-directory", str(self.base)]
        command += ["--output-directory", str(self.output), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--preview-method", "none", *self._flags]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        # A leftover path could put this pack's folder `nodes` before the host's module of that name.
        environment.pop("PYTHONPATH", None)
        with self.log_path.open("wb") as log:
            # A session of its own: Ctrl-C reaches only us, and we stop the server in order.
            self._process = subprocess.Popen(
                command, cwd=self.comfyui, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_up(seconds=180)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops the server, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_up(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._raise_if_gone()
            try:
                self.get("/system_stats")
                return
            except (OSError, ValueError):
                time.sleep(0.2)
        raise HostError(f"ComfyUI in {self.comfyui} did not answer within {seconds:.0f} seconds")

    def _raise_if_gone(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise HostError(f"ComfyUI in {self.comfyui} stopped with exit code {self._process.returncode}")

    def log(self) -> str:
        """All that the server has written until now."""
        return self.log_path.read_text(errors="replace")

    def get(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        """What the server answers to a request for a path, from JSON."""
        with urllib.request.urlopen(self._address(path), timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """What the server answers to content that is sent to a path, both JSON.  Raises HostError when it refuses."""
        data = json.dumps(content).encode()
        request = urllib.request.Request(self._address(path), data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise HostError(f"ComfyUI refused {path}: {error.read().decode(errors='replace')}") from error
        return json.loads(text) if text else {}

    def _address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def view(self, saved: Path) -> str:
        """Where the page finds a file of the output folder."""
        place = saved.relative_to(self.output)
        asked = {"filename": place.name, "subfolder": place.parent.as_posix(), "type": "output"}
        return f"/view?{urllib.parse.urlencode(asked)}"

    def queue(self, prompt: Prompt) -> str:
        """Queues a prompt with the graph that the page would send along, and returns its id."""
        self._log_mark = len(self.log())
        return self.post("/prompt", {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": {}}}})["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 600, tell: Callable[[str], None] | None = None) -> Finished:
        """Waits for a prompt's end, for so many seconds, and gives what became of it.

        ``tell`` is told of the sampler's progress, such as 3/20.  Raises HostError when it takes longer, or the server
        is gone.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._raise_if_gone()
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return Finished(entry["status"]["status_str"], entry["status"]["messages"], entry["outputs"])
            if tell is not None and (progress := self.progress()):
                tell(progress)
            time.sleep(0.1)
        raise HostError(f"the prompt had not ended after {seconds:.0f} seconds")

    def run(self, prompt: Prompt, seconds: float = 600, tell: Callable[[str], None] | None = None) -> Finished:
        """Queues a prompt, waits, and raises HostError when a node failed."""
        finished = self.wait(self.queue(prompt), seconds, tell)
        if finished.status != "success":
            raise HostError(finished.error or "the run was interrupted")
        return finished

    def interrupt(self) -> None:
        """Stops the prompt that runs now."""
        self.post("/interrupt", {})

    def progress(self) -> str | None:
        """The sampler's progress as it last wrote it to the log since the prompt was queued, for instance 3/20."""
        steps = re.findall(r"(\d+/\d+) \[", self.log()[self._log_mark :])
        return steps[-1] if steps else None
