"""Ctrl-C asks a run to stop."""

import os
import signal

import pytest

from magicvideo.adaptor_unet.training.terminal import Terminal


def test_the_first_interrupt_asks_and_the_second_stops() -> None:
    terminal = Terminal(steps=5, done=0)
    try:
        assert not terminal.stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert terminal.stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        terminal.close()
