"""Where bin/train writes, and what it never writes over."""

from pathlib import Path

import pytest

from magicvideo.adaptor_unet.host.training_files import BaseCheckpoint
from magicvideo.trainer.command import TrainCommand


def command(output: Path, resume: bool = False) -> TrainCommand:
    return TrainCommand(Path("base.safetensors"), Path("clips"), None, output, resume=resume)


@pytest.mark.parametrize("name", ["waves", "waves_v1.5", "waves_v1.6", "a.b.c", "파도.1", ".hidden", "waves.ckpt"])
@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_a_dot_in_a_name_is_part_of_it(name: str, ending: str, tmp_path: Path) -> None:
    output = command(tmp_path / (name + ending))._output()
    assert output.adaptor == tmp_path / f"{name}.safetensors"
    assert (output.folder, output.base) == (tmp_path / f"{name}.run", tmp_path / f"{name}_base.safetensors")


def test_resuming_never_writes_over_an_adaptor_that_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "waves.safetensors").write_bytes(b"weeks of work")
    with pytest.raises(ValueError, match="waves.safetensors is there already.* no state to go on from"):
        command(tmp_path / "waves", resume=True)._output()
    (tmp_path / "waves.run").mkdir()
    (tmp_path / "waves.run" / "step-00000004.state").write_bytes(b"it may be sound")
    assert command(tmp_path / "waves", resume=True)._output().adaptor == tmp_path / "waves.safetensors"


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    (tmp_path / "waves.safetensors").mkdir()
    for resume in (False, True):
        with pytest.raises(ValueError, match="waves.safetensors.* that is a folder. Choose another name"):
            command(tmp_path / "waves", resume)._output()
    with pytest.raises(ValueError, match="is a folder; expected a Stable Diffusion checkpoint"):
        BaseCheckpoint(tmp_path)
