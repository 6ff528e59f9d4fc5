"""One training at a time writes into a run's folder."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magicvideo.adaptor_unet.training import run_lock as run_lock_file
from magicvideo.adaptor_unet.training.run_lock import run_lock

HOLDS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pack
from magicvideo.adaptor_unet.training.run_lock import run_lock
with run_lock(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a.run"):
        with pytest.raises(ValueError, match="Another training writes into .*a.run now"), run_lock(tmp_path / "a.run"):
            pass
        with run_lock(tmp_path / "b.run"):
            pass
    with pytest.raises(KeyError), run_lock(tmp_path / "a.run"):
        raise KeyError
    with run_lock(tmp_path / "a.run"):
        pass
    assert os.name == "nt" or not list(tmp_path.iterdir()), "nothing stays"


def test_a_training_of_another_process_counts_and_a_killed_one_does_not(tmp_path: Path) -> None:
    places = str(Path(__file__).resolve().parents[2] / "bin"), str(tmp_path / "a.run")
    command = [sys.executable, "-c", HOLDS, *places]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another training"), run_lock(tmp_path / "a.run"):
            pass
        other.kill()
        other.wait()
    with run_lock(tmp_path / "a.run"):
        pass


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="Nothing can be written in .*file"), run_lock(tmp_path / "file" / "a.run"):
        pass


def test_where_nothing_can_be_locked_a_training_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if os.name == "nt":
        monkeypatch.setattr(run_lock_file.msvcrt, "locking", no_locks)
    else:
        monkeypatch.setattr(run_lock_file.fcntl, "flock", no_locks)
    with run_lock(tmp_path / "a.run"):
        pass
    assert "cannot be locked (No locks available)" in caplog.text


def test_what_a_killed_training_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "a.run"
    folder.mkdir()
    for name in (".step-00000004.state.77.partial", ".tmpGh12Xy", "step-00000002.state", ".kept"):
        (folder / name).write_bytes(b"state")
    with run_lock(folder):
        assert sorted(os.listdir(folder)) == [".kept", "step-00000002.state"]
