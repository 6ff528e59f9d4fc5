"""Makes the pack importable as ``magicvideo`` for all tests, and refuses marks under which a test would run nowhere."""

import pack  # noqa: F401
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    nowhere = [
        item.nodeid for item in items if item.get_closest_marker("on_oldest") and item.get_closest_marker("on_newest")
    ]
    if nowhere:
        raise pytest.UsageError(f"marked on_oldest and on_newest, so they would run on neither: {', '.join(nowhere)}")
