"""What ComfyUI's own loader says of the pack when a Python package is missing, and that ComfyUI brings all it needs."""

import asyncio
import logging
import re
import sys
from collections.abc import Iterator

import nodes
import pytest
from pack import ROOT

from magicvideo.tools.host_in_process import find_host

# Imported only once something is trained.
FOR_TRAINING = {"accelerate"}


def required(text: str) -> set[str]:
    """Names of the packages in a requirements file, in small letters."""
    return {name.lower() for name in re.findall(r"^[A-Za-z0-9_-]+", text, re.MULTILINE)}


OURS = required((ROOT / "requirements.txt").read_text(encoding="utf-8"))
# What ComfyUI imports with the nodes, by the names in import statements.
MODULES = sorted(OURS - FOR_TRAINING - {"pillow"} | {"PIL"})


@pytest.fixture
def clean_host() -> Iterator[None]:
    """Puts back what the host and Python remember of a pack that was loaded again."""
    kept = [(table, dict(table)) for table in (sys.modules, nodes.NODE_CLASS_MAPPINGS, nodes.EXTENSION_WEB_DIRS)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)


def load() -> bool:
    """Loads the pack as ComfyUI does when it starts."""
    return asyncio.run(nodes.load_custom_node(str(ROOT)))


@pytest.mark.usefixtures("clean_host")
@pytest.mark.parametrize("module", MODULES)
def test_the_log_names_a_missing_package_and_the_command_that_brings_it(
    module: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with caplog.at_level(logging.WARNING):
        assert load() is False
    (line,) = [message for message in caplog.messages if "comfy_entrypoint" in message]
    command = f'"{sys.executable}" -m pip install -r "{ROOT / "requirements.txt"}"'
    assert repr(module) in line and command in line and "\n" not in line


@pytest.mark.usefixtures("clean_host")
def test_a_part_that_a_too_old_host_lacks_is_not_called_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "comfy.patcher_extension", None)
    with caplog.at_level(logging.WARNING):
        assert load() is False
    (line,) = [message for message in caplog.messages if "comfy_entrypoint" in message]
    assert "comfy.patcher_extension" in line and "pip install" not in line


@pytest.mark.usefixtures("clean_host")
def test_the_pack_loads_without_what_only_training_needs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in FOR_TRAINING:
        monkeypatch.setitem(sys.modules, module, None)
    with caplog.at_level(logging.WARNING):
        assert load() is True
    assert not [message for message in caplog.messages if "MagicVideo" in message]
    assert "MagicVideo_Apply" in nodes.NODE_CLASS_MAPPINGS


def test_this_host_requires_all_that_the_pack_needs_but_accelerate() -> None:
    assert required((find_host() / "requirements.txt").read_text(encoding="utf-8")) >= OURS - {"accelerate"}
