"""Makes the pack importable as ``magicvideo`` for all tests, and ComfyUI for those that are told of one.

Refuses marks under which a test would run nowhere.
"""

import os

import pack  # noqa: F401
import pytest

from magicvideo.tools.host_in_process import start_host

if "COMFYUI_PATH" in os.environ:
    start_host(cpu=True)  # now, so that the other files of the tests can import ComfyUI like any package


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    nowhere = [
        item.nodeid for item in items if item.get_closest_marker("on_oldest") and item.get_closest_marker("on_newest")
    ]
    if nowhere:
        raise pytest.UsageError(f"marked on_oldest and on_newest, so they would run on neither: {', '.join(nowhere)}")
