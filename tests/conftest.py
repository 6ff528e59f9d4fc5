"""Makes the pack importable as ``magicvideo`` for all tests, and ComfyUI for those that are told of one.

Shares the cases of tests that are marked ``take_turns`` out to the two ComfyUIs, and refuses marks under which a test
would run nowhere.
"""

import gc
import math
import os

import numpy as np
import pack  # noqa: F401
import pytest

from magicvideo.tools.host_in_process import start_host

if "COMFYUI_PATH" in os.environ:
    start_host(cpu=True)  # now, so that the other files of the tests can import ComfyUI like any package


def turn_of(item: pytest.Function) -> str:
    """The ComfyUI that a case is for: as on a chess board, so that each has cases of every value of every argument."""
    marks = list(item.iter_markers("parametrize"))
    given = {name for mark in marks for name in ([mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0])}
    # pytest numbers a test's cases through, and beside that the values of each fixture.
    number = next((place for name, place in item.callspec.indices.items() if name in given), 0)
    lengths = [len(mark.args[1]) for mark in marks]
    of_marks = np.unravel_index(number % math.prod(lengths), lengths)
    of_fixtures = [place for name, place in item.callspec.indices.items() if name not in given]
    return ("on_newest", "on_oldest")[int(sum(of_marks) + sum(of_fixtures)) % 2]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("take_turns") and not any(map(item.get_closest_marker, ("on_oldest", "on_newest"))):
            item.add_marker(turn_of(item))
    nowhere = [
        item.nodeid for item in items if item.get_closest_marker("on_oldest") and item.get_closest_marker("on_newest")
    ]
    if nowhere:
        raise pytest.UsageError(f"marked on_oldest and on_newest, so they would run on neither: {', '.join(nowhere)}")


def pytest_collection_finish() -> None:
    """Spares every later collection of garbage the walk through all modules that are loaded by now."""
    gc.collect()
    gc.freeze()
