"""Which folders a graph may read clips from, and what files that it writes may be called; the command's own files."""

import importlib.util
from pathlib import Path

import folder_paths
import pytest

from magicvideo.adaptor_unet.host.folders import CLIPS, checked_prefix, clips_folder
from magicvideo.nodes.train import TrainAdaptor


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "input" / "waves").mkdir(parents=True)
    (tmp_path / "inputs and more").mkdir()
    (tmp_path / "listed" / "waves").mkdir(parents=True)
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    return tmp_path


def test_a_folder_below_the_input_folder_is_read_by_its_whole_name_or_from_there(server: Path) -> None:
    folder = server / "input" / "waves"
    assert clips_folder(str(folder)) == folder == clips_folder("waves") == clips_folder("waves/../waves/")
    assert clips_folder(str(server / "input")) == server / "input"


@pytest.mark.parametrize("name", ["listed/waves", "inputs and more", "input/../listed", "", "input/waves/../.."])
def test_other_folders_are_refused_and_nothing_is_said_of_them(server: Path, name: str) -> None:
    for given in (str(server / name), str(server / name / "not there"), "/", "/etc", "../listed", "~", "a\0b/../../x"):
        with pytest.raises(ValueError, match="expected a folder below ComfyUI's input folder") as caught:
            clips_folder(given)
        assert "is not a folder" not in str(caught.value)


def test_a_folder_that_the_owner_lists_is_read(server: Path) -> None:
    folder_paths.add_model_folder_path(CLIPS, str(server / "listed"))
    assert clips_folder(str(server / "listed" / "waves")) == server / "listed" / "waves"
    with pytest.raises(ValueError, match="below ComfyUI's input folder"):
        clips_folder(str(server / "inputs and more"))


def test_a_link_that_the_owner_placed_is_followed(server: Path) -> None:
    (server / "input" / "link").symlink_to(server / "listed")
    assert clips_folder("link/waves") == server / "input" / "link" / "waves"
    with pytest.raises(ValueError, match="below ComfyUI's input folder"):
        clips_folder("link/../../listed")


def test_what_comes_into_a_folder_or_changes_there_is_noticed(server: Path) -> None:
    folder, seen = server / "input" / "waves" / "storm", []

    def note() -> None:
        seen.append(TrainAdaptor.fingerprint_inputs(clips_folder=["waves"], fps=(None,)))

    note()
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"one")
    note()
    (folder / "a.txt").write_text("a wave", encoding="utf-8")
    note()
    (folder / "a.mp4").write_bytes(b"other")
    note()
    assert len(set(seen)) == len(seen)
    note()
    assert seen[-1] == seen[-2]
    nothing = (["/etc"], [""], ["waves/not there"])
    assert {TrainAdaptor.fingerprint_inputs(clips_folder=given) for given in nothing} == {""}
    assert TrainAdaptor.fingerprint_inputs() == "", "as graphs of before have it"


def test_where_the_name_of_the_folder_comes_over_a_wire_the_node_looks_at_each_run() -> None:
    """The host tells no value of a wire beforehand."""
    assert TrainAdaptor.fingerprint_inputs(clips_folder=(None,)) != TrainAdaptor.fingerprint_inputs(
        clips_folder=(None,)
    )


@pytest.mark.parametrize("prefix", ["a\nb", "a\u202eb", "CON", "my/NUL.x", "a?", "a\x00", "x" * 300, "my/ a", "a."])
def test_prefixes_that_some_system_refuses_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="filename_prefix of Save MagicVideo Adaptor must be a name"):
        checked_prefix(prefix)


def test_ctrl_c_while_something_is_loaded_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    place = Path(__file__).resolve().parents[2] / "bin" / "train.py"
    spec = importlib.util.spec_from_file_location("train_command_file", place)
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert train.main() == 130
    assert "bin/train: stopped. Clips that are encoded stay in the cache" in capsys.readouterr().err
