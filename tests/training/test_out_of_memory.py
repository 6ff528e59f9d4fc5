"""Memory that is too short ends a run with one sentence, whatever it was short for, and what was learnt is kept."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.checkpoint import CheckpointError
from toy import ToyDenoiser, toy_run

from fake_encoders import FakeEncoders
from made_clips import greys, write_video
from magicvideo.adaptor_unet.training.data.clip_files import find_clips
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_cache import build_cache
from magicvideo.adaptor_unet.training.processes import accelerator
from magicvideo.adaptor_unet.training.run_state import states
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.training_error import (
    OutOfMemoryError,
    TrainingError,
    enough_memory,
    is_out_of_memory,
)

SETTINGS = {"steps": 4, "warm_up": 0, "still_share": 0.0, "validate_every": 2, "sample_every": 0}


def gpu_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_the_errors_that_mean_it_and_those_that_do_not() -> None:
    told = ["CUDA error: out of memory", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"]
    meaning = [*map(RuntimeError, [*told, "CUBLAS_STATUS_ALLOC_FAILED"]), MemoryError(), CheckpointError("differ")]
    assert all(map(is_out_of_memory, meaning))
    others = [RuntimeError("shapes differ"), TrainingError("The loss is nan"), OutOfMemoryError("Out of memory, told.")]
    assert not any(map(is_out_of_memory, others))
    with pytest.raises(RuntimeError, match="shapes differ"), enough_memory("counting", "Count less."):
        raise others[0]


class Short(ToyDenoiser):
    """Memory is too short in the ``at``-th call, or on its way back; ``later`` calls find enough again."""

    def __init__(self, at: int, back: bool = False) -> None:
        super().__init__()
        self.left, self.back = at, back

    def predict(self, *args: object, **named: object) -> Tensor:
        self.left -= 1
        if self.left == 0 and not self.back:
            gpu_is_full()
        out = super().predict(*args, **named)
        if self.left == 0:
            out.register_hook(differ)
        return out


def differ(gradient: Tensor) -> None:
    raise CheckpointError("Recomputed values for the following tensors have different metadata")


@pytest.mark.parametrize("back", [False, True])
def test_in_a_step_what_was_learnt_until_then_is_saved_and_gone_on_from(back: bool, tmp_path: Path) -> None:
    settings = TrainingSettings(**SETTINGS | {"validate_every": 0})
    with pytest.raises(
        OutOfMemoryError, match=r"during training \(step 4 of 4, 4 frames of 32x32\).*in 3 steps is saved"
    ) as caught:
        toy_run(settings, tmp_path / "short", denoiser=Short(at=4, back=back)).train()
    assert "Lower frames, width or height, in a new run" in str(caught.value)
    again, whole = toy_run(settings, tmp_path / "short"), toy_run(settings, tmp_path / "whole")
    assert again.resume() and again.state.step == 3
    assert again.train() and whole.train()
    one, other = (load_file(states(tmp_path / name)[-1]) for name in ("short", "whole"))
    assert all(torch.equal(x, other[name]) for name, x in one.items())


def test_what_can_be_changed_in_the_same_run_is_named_first(tmp_path: Path) -> None:
    lower = {"clips_at_once below 3": {"clips_at_once": 3}, "Go on with checkpointing": {"checkpointing": False}}
    for words, changed in lower.items():
        settings = TrainingSettings(**SETTINGS | {"validate_every": 0} | changed)
        with pytest.raises(OutOfMemoryError, match=words):
            toy_run(settings, tmp_path / words, denoiser=Short(at=1)).train()


def test_in_a_look_it_is_said_which_setting_leaves_that_out(tmp_path: Path) -> None:
    calls = 2 * 2 * 4  # two clips, two figures, four levels
    with pytest.raises(OutOfMemoryError, match="during validation .* validate_every = 0.* in 2 steps is saved"):
        toy_run(TrainingSettings(**SETTINGS), tmp_path / "a", denoiser=Short(at=calls + 2 + 1)).train()
    settings = TrainingSettings(**SETTINGS | {"sample_every": 2})
    with pytest.raises(OutOfMemoryError, match="during sample clip .* sample_every = 0.* Nothing was learnt yet"):
        toy_run(settings, tmp_path / "b", sample=gpu_is_full).train()
    assert [path.name for path in states(tmp_path / "a")] == ["step-00000002.state"] and not states(tmp_path / "b")


def test_tensors_that_are_changed_in_part_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(TrainingSettings(**SETTINGS | {"save_every": 1}), tmp_path)
    steps: Iterator[Callable[[], None]] = iter([run.optimiser.step, run.optimiser.step, gpu_is_full])
    monkeypatch.setattr(run.optimiser, "step", lambda: next(steps)())
    with pytest.raises(OutOfMemoryError, match="during training .step 3 of 4,.*What was saved before is intact"):
        run.train()
    assert states(tmp_path)[-1].name == "step-00000002.state"


def test_while_clips_are_encoded_the_clip_is_named_and_those_before_stay(tmp_path: Path) -> None:
    for place in range(2):
        write_video(tmp_path / "clips" / f"{place}.mp4", greys(4 + place))

    class Full(FakeEncoders):
        def pictures(self, frames: Tensor) -> Tensor:
            if self.batches:
                gpu_is_full()
            return super().pictures(frames)

    encoders, settings = Full(), DataSettings(frames=2, width=16, height=16, draws_per_clip=1, fps_min=0)
    with pytest.raises(OutOfMemoryError, match="Out of memory while 1.mp4 is encoded. Lower width or height"):
        build_cache(find_clips(tmp_path / "clips"), settings, tmp_path / "cache", "x", lambda: encoders, print)
    assert len(list((tmp_path / "cache" / "clips").iterdir())) == 1


def test_processes_wait_for_the_one_that_encodes_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("accelerate.Accelerator", lambda **named: given.extend(named["kwargs_handlers"]))
    accelerator(cpu=True)
    assert [handler.timeout > timedelta(days=1) for handler in given] == [True]
