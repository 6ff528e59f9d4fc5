"""A run that is interrupted and resumed is the run that was never interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import Told, toy_adaptor, toy_clips, toy_data, toy_run

from magicvideo.adaptor_unet.training.data.latent_clip import MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.run_state import StateError, states
from magicvideo.adaptor_unet.training.settings import TrainingSettings

SETTINGS = {"steps": 12, "batch": 3, "save_every": 4, "learning_rate": 1e-3, "warm_up": 3, "sample_every": 0}
SETTINGS |= {"base_tuning": "lora", "base_still_share": 0.2, "still_share": 0.2, "high_noise_share": 0.3}


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(states(folder)[-1])


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Everything that an uninterrupted run ends with."""
    toy_run(TrainingSettings(**SETTINGS), tmp_path / "whole").train()
    return final(tmp_path / "whole")


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("stop_at", [1, 4, 7, 11])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(
    stop_at: int, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    settings, folder = TrainingSettings(**SETTINGS), tmp_path / "parts"
    assert not toy_run(settings, folder, Told(stop_at=stop_at)).train()
    torch.manual_seed(time.time_ns())  # nothing may hang on the process's own chance
    resumed = toy_run(settings, folder)
    assert resumed.resume()
    assert resumed.state.step == stop_at
    assert resumed.train()
    assert same(final(folder), whole)


def test_another_seed_ends_elsewhere(tmp_path: Path, whole: dict[str, torch.Tensor]) -> None:
    toy_run(TrainingSettings(**SETTINGS | {"seed": 1}), tmp_path / "other").train()
    assert not same(final(tmp_path / "other"), whole)


KILLED = """
import importlib.util, pathlib, sys, time
sys.path[:0] = sys.argv[1].split(":")
import pack
from toy import Told, toy_run
from magicvideo.adaptor_unet.training.settings import TrainingSettings

class Slow(Told):
    def numbers(self, done, total, values):
        super().numbers(done, total, values)
        print(done, flush=True)
        time.sleep(0.05)

run = toy_run(TrainingSettings(**eval(sys.argv[3])), pathlib.Path(sys.argv[2]), Slow())
run.resume()
run.train()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a word of POSIX")
@pytest.mark.parametrize("after_step", [2, 9])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(
    after_step: int, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    folder = tmp_path / "killed"
    tests = Path(__file__).parent.parent
    places = f"{tests / 'support'}:{tests.parent / 'bin'}"
    settings = SETTINGS | {"save_every": 1}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, places, str(folder), repr(settings)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) >= after_step:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = toy_run(TrainingSettings(**settings), folder)
    assert resumed.resume()
    assert 1 <= resumed.state.step < 12
    assert resumed.train()
    assert same(final(folder), whole)


def test_only_the_last_states_are_kept(tmp_path: Path) -> None:
    toy_run(TrainingSettings(**SETTINGS | {"keep": 2, "save_every": 3}), tmp_path).train()
    assert [path.name for path in states(tmp_path)] == ["step-00000009.state", "step-00000012.state"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which files lie in memory")
def test_a_resumed_run_holds_no_state_file_which_windows_would_not_let_go(tmp_path: Path) -> None:
    toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=6)).train()
    resumed = toy_run(TrainingSettings(**SETTINGS), tmp_path)
    assert resumed.resume() and resumed.state.step == 6
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_an_old_state_that_cannot_be_removed_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "it is looked at", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert toy_run(TrainingSettings(**SETTINGS | {"keep": 1}), tmp_path).train()
    assert len(states(tmp_path)) == 3 and "step-00000004.state is of no use any more" in caplog.text


def test_a_state_that_is_just_saved_stays_and_a_damaged_later_one_goes(tmp_path: Path) -> None:
    run = toy_run(TrainingSettings(**SETTINGS), tmp_path)
    for step in (2, 6, 8):
        run.state.step = step
        run.state.save(tmp_path, keep=3)
    states(tmp_path)[-1].write_bytes(b"damaged")
    assert run.resume() and run.state.step == 6
    run.state.step = 7
    run.state.save(tmp_path, keep=1)
    assert [path.name for path in states(tmp_path)] == ["step-00000007.state"]


def test_a_damaged_state_is_named_and_the_one_before_is_taken(
    tmp_path: Path, whole: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    settings = TrainingSettings(**SETTINGS | {"save_every": 4})
    toy_run(settings, tmp_path, Told(stop_at=9)).train()
    newest = states(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    run = toy_run(settings, tmp_path)
    assert run.resume()
    assert run.state.step == 8
    assert newest.name in caplog.text
    run.train()
    assert same(final(tmp_path), whole)


@pytest.mark.parametrize(("name", "value"), [("batch", 2), ("seed", 9), ("base_tuning", "full"), ("still_share", 0.5)])
def test_a_state_of_another_run_is_refused_and_nothing_changes(name: str, value: object, tmp_path: Path) -> None:
    toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=4)).train()
    other = toy_run(TrainingSettings(**SETTINGS | {name: value}), tmp_path)
    before = {key: x.detach().clone() for key, x in other.trainables.parameters.items()}
    with pytest.raises(StateError, match=f"belongs to a run with {name}"):
        other.resume()
    assert all(torch.equal(x, before[key]) for key, x in other.trainables.parameters.items())


def test_another_adaptor_or_base_is_refused(tmp_path: Path) -> None:
    settings = TrainingSettings(**SETTINGS)
    toy_run(settings, tmp_path, Told(stop_at=4), run_identity={"base_model": "a"}).train()
    with pytest.raises(StateError, match="belongs to a run with base_model 'a', this one has 'b'"):
        toy_run(settings, tmp_path, run_identity={"base_model": "b"}).resume()
    with pytest.raises(StateError, match="belongs to a run with adaptor"):
        toy_run(settings, tmp_path, adaptor=toy_adaptor(frames=3), run_identity={"base_model": "a"}).resume()


def test_a_run_keeps_its_name_and_another_has_another(tmp_path: Path) -> None:
    run = toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=4))
    run.train()
    again = toy_run(TrainingSettings(**SETTINGS | {"steps": 20}), tmp_path)
    other = toy_run(TrainingSettings(**SETTINGS | {"seed": 1}), tmp_path)
    assert again.resume() and again.state.name == run.state.name != other.state.name


def test_more_steps_may_be_asked_for_later(tmp_path: Path) -> None:
    toy_run(TrainingSettings(**SETTINGS), tmp_path).train()
    longer = toy_run(TrainingSettings(**SETTINGS | {"steps": 14}), tmp_path)
    assert longer.resume()
    assert longer.train()
    assert longer.state.step == 14


def test_a_write_that_fails_leaves_no_half_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=4))
    run.train()
    before = sorted(path.name for path in tmp_path.iterdir())

    def half(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("magicvideo.adaptor_unet.whole_file.save_file", half)
    with pytest.raises(OSError, match="No space"):
        run.state.save(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_nothing_to_resume_is_no_error(tmp_path: Path) -> None:
    assert not toy_run(TrainingSettings(**SETTINGS), tmp_path / "new").resume()


def changed(clips: TrainingClips, **change: object) -> TrainingClips:
    """With the last clip changed."""
    *others, last = clips.train.clips
    return replace(clips, train=MemoryClips((*others, replace(last, **change))))


def test_other_clips_are_refused_for_resuming(tmp_path: Path) -> None:
    settings, clips = TrainingSettings(**SETTINGS), toy_data()
    last = clips.train.clips[-1]
    one_value = last.latents.clone()
    one_value[-1, -1, -1, -1] += 1e-3
    others = [
        changed(clips, latents=one_value),
        changed(clips, latents=last.latents[:, :, :2]),
        changed(clips, text=last.text + 1, caption="another"),
        changed(clips, fps=30.0),
        replace(clips, train=toy_clips(5, seed=1)),
        replace(clips, empty_text=clips.empty_text + 1),
    ]
    toy_run(settings, tmp_path, Told(stop_at=4)).train()
    for other in others:
        with pytest.raises(StateError, match="belongs to a run with other clips, captions"):
            toy_run(settings, tmp_path, clips=other).resume()
    assert toy_run(settings, tmp_path).resume()


def test_other_held_out_clips_are_refused_for_resuming(tmp_path: Path) -> None:
    settings, clips = TrainingSettings(**SETTINGS), toy_data()
    toy_run(settings, tmp_path, Told(stop_at=4)).train()
    first, *others = clips.held_out
    for change in ({"latents": first.latents + 1e-3}, {"caption": "another"}, {"fps": 30.0}):
        other = replace(clips, held_out=(replace(first, **change), *others))
        with pytest.raises(StateError, match="belongs to a run with other held-out clips"):
            toy_run(settings, tmp_path, clips=other).resume()


def test_a_state_of_an_earlier_version_that_noted_no_clips_is_gone_on_from_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=4))
    del run.state.run_identity["clip_contents"], run.state.run_identity["held_out"]
    run.train()
    assert toy_run(TrainingSettings(**SETTINGS), tmp_path).resume()
    assert "did not note clip_contents" in caplog.text and "did not note held_out" in caplog.text


def test_a_state_of_an_earlier_version_whose_adaptor_had_fewer_settings_is_gone_on_from(tmp_path: Path) -> None:
    run = toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=4))
    config = json.loads(run.state.run_identity["adaptor"])
    del config["head_channels"], config["fps_guidance"]
    run.state.run_identity["adaptor"] = json.dumps(config)
    run.train()
    assert toy_run(TrainingSettings(**SETTINGS), tmp_path).resume()


def test_what_differs_between_two_adaptors_is_said(tmp_path: Path) -> None:
    settings = TrainingSettings(**SETTINGS)
    toy_run(settings, tmp_path, Told(stop_at=4)).train()
    with pytest.raises(StateError, match="with adaptor of frames 4, this one has 3. Set it back") as caught:
        toy_run(settings, tmp_path, adaptor=toy_adaptor(frames=3)).resume()
    assert "heads" not in str(caught.value)


def test_a_flipped_bit_in_a_state_is_noticed(
    tmp_path: Path, whole: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    toy_run(TrainingSettings(**SETTINGS), tmp_path, Told(stop_at=9)).train()
    newest = states(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[-3] ^= 64
    newest.write_bytes(content)
    run = toy_run(TrainingSettings(**SETTINGS), tmp_path)
    assert run.resume()
    assert run.state.step == 8 and "values are not those that were written" in caplog.text
    run.train()
    assert same(final(tmp_path), whole)
