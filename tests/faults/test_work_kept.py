"""Whatever ends a training in its middle, what was learnt until then is kept, and gone on from to the same end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import Told, toy_data, toy_run

from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips
from magicvideo.adaptor_unet.training.run_state import states
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.training_error import TrainingError
from magicvideo.adaptor_unet.whole_file import OutputError

SETTINGS = TrainingSettings(steps=6, save_every=100, learning_rate=1e-3, warm_up=0, sample_every=0, validate_every=0)


class Fleeting(MemoryClips):
    """Clips of which none can be read any more once ``gone`` says so, as when a person empties the cache."""

    gone = False

    def __getitem__(self, item: int) -> LatentClip:
        if self.gone:
            raise ValueError("cache/a.safetensors of the cache cannot be read.")
        return super().__getitem__(item)


class Empties(Told):
    """Takes the clips away after that step."""

    def __init__(self, step: int, clips: Fleeting) -> None:
        super().__init__()
        self.step, self.emptied = step, clips

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        super().numbers(done, total, values)
        if done == self.step:
            self.emptied.__dict__["gone"] = True


class FullAt(Told):
    """Cannot write its numbers after that step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        if done == self.step:
            raise OutputError("metrics.jsonl cannot be written: No space left there. Make room.")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    toy_run(SETTINGS, folder).train()
    return load_file(states(folder)[-1])


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("ended_by", ["a cache that is emptied", "a disk that is full"])
def test_an_error_between_two_saves_loses_no_step(
    ended_by: str, step: int, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    data = toy_data()
    fleeting = Fleeting(data.train.clips)
    watcher = Empties(step, fleeting) if ended_by == "a cache that is emptied" else FullAt(step)
    said = "of the cache cannot be read" if ended_by == "a cache that is emptied" else "No space left there"
    with pytest.raises(TrainingError, match=rf"{said}.* What was learnt in {step} steps is saved\."):
        toy_run(SETTINGS, tmp_path, watcher, clips=replace(data, train=fleeting)).train()
    again = toy_run(SETTINGS, tmp_path)
    assert again.resume() and again.state.step == step and again.train()
    found = load_file(states(tmp_path)[-1])
    assert all(torch.equal(x, found[name]) for name, x in whole.items())


def test_in_the_first_step_nothing_was_learnt(tmp_path: Path) -> None:
    data = toy_data()
    fleeting = Fleeting(data.train.clips)
    fleeting.__dict__["gone"] = True
    with pytest.raises(TrainingError, match="cannot be read. Nothing was learnt yet."):
        toy_run(SETTINGS, tmp_path, clips=replace(data, train=fleeting)).train()
    assert not states(tmp_path)


def test_the_usual_rate_is_read_once(tmp_path: Path) -> None:
    """The file of an adaptor says it, also when clips have gone since."""
    fleeting = Fleeting(toy_data().train.clips)
    clips = replace(toy_data(), train=fleeting)
    rate = clips.usual_fps
    fleeting.__dict__["gone"] = True
    assert clips.usual_fps == rate
