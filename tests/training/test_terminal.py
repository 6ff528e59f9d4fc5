"""A bar says what goes on, its clock goes on while nothing comes in, and Ctrl-C asks a run to stop."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from magicvideo.adaptor_unet.training import terminal
from magicvideo.adaptor_unet.training.terminal import Terminal, preparing


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "SECONDS_IN_A_FILE", 0.05)


def test_while_nothing_comes_in_there_is_a_line_every_so_often(capsys: pytest.CaptureFixture) -> None:
    with preparing("starting") as bar:
        bar.phase("reading clips", 2, 3)
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("starting [00:0")
    assert len([line for line in lines if line.startswith("reading clips, 2 of 3 [00:0")]) >= 3
    time.sleep(0.2)
    assert not capsys.readouterr().err  # nothing once it is closed


def test_a_new_phase_is_named_at_once_and_a_quiet_bar_says_nothing(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "SECONDS_IN_A_FILE", 60.0)
    for quiet, lines in ((False, 1), (True, 0)):
        with preparing("loading", quiet) as bar:
            bar.phase("copying the model")
            assert capsys.readouterr().err.count("copying the model") == lines


def test_the_terminal_names_each_phase_beside_the_steps(capsys: pytest.CaptureFixture) -> None:
    watcher = Terminal(steps=5, done=0)
    try:
        for doing in ("validation", "training"):
            watcher.phase(doing, 1, 16)
            time.sleep(0.2)
        told = capsys.readouterr().err
        assert "validation, 1 of 16:   0%" in told and "training:   0%" in told and "0/5" in told
    finally:
        watcher.close()


@pytest.fixture
def heard() -> Iterator[None]:
    """Interrupts are heard as at a terminal, also where tests run in the background and would ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_the_first_interrupt_asks_and_the_second_stops() -> None:
    watcher = Terminal(steps=5, done=0)
    try:
        assert not watcher.stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert watcher.stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        watcher.close()
