"""Clips that a teacher samples: once, named by all that made them, and mixed with the user's own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import toy_data

from fake_encoders import FakeEncoders
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_cache import FolderClips
from magicvideo.adaptor_unet.training.data.teacher_clips import (
    TeacherWork,
    read_prompts,
    sampled_clips,
    with_teacher,
)
from magicvideo.adaptor_unet.training.settings import MotionModuleSettings

DATA = DataSettings(frames=2, width=16, height=24, caption_prefix="clip:")
WORK = TeacherWork(("a cat", "a dog"), DATA, MotionModuleSettings(teacher_clips=3, teacher_fps=6.0), "module", "text")


class Sampler:
    """Random clips, one for each seed; fails at the ``broken``-th."""

    def __init__(self, broken: int = 0) -> None:
        self.broken, self.seen = broken, []

    def __call__(self, text: torch.Tensor, empty: torch.Tensor, seed: int, told: Callable) -> torch.Tensor:
        self.seen.append((seed, text.sum().item() != empty.sum().item()))
        if len(self.seen) == self.broken:
            raise KeyboardInterrupt
        told(25, 25)
        return torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(seed))


def sampled(folder: Path, sampler: Sampler, work: TeacherWork = WORK, said: list | None = None) -> FolderClips:
    return sampled_clips(
        work, folder, FakeEncoders, sampler, lambda *told: (said if said is not None else []).append(told)
    )


def test_each_clip_is_sampled_once_and_a_stop_keeps_those_that_are_done(tmp_path: Path) -> None:
    broken, rest, none = Sampler(broken=3), Sampler(), Sampler()
    with pytest.raises(KeyboardInterrupt):
        sampled(tmp_path, broken)
    clips = sampled(tmp_path, rest)
    again = sampled(tmp_path, none)
    assert [len(one.seen) for one in (broken, rest, none)] == [3, 4, 0]
    assert len({seed for seed, _ in broken.seen + rest.seen}) == 6 and all(other for _, other in rest.seen)
    assert len(clips) == 6 and clips.content == again.content
    first = clips[0]
    assert (first.caption, first.fps, first.latents.shape) == ("clip: a cat", 6.0, (2, 4, 3, 2))
    made = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(broken.seen[0][0]))
    torch.testing.assert_close(first.latents.float(), made, rtol=1e-3, atol=1e-3)
    assert clips[5].caption == "clip: a dog"


def test_it_is_said_which_clip_is_sampled_and_how_far_it_is(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    sampled(tmp_path, Sampler(), said=said)
    assert (4, 6, "the teacher samples 'a dog', step 25 of 25") in said
    assert (0, 6, "encoding prompts") in said


OTHERS = {
    "teacher": replace(WORK, teacher="other"),
    "encoders": replace(WORK, encoders="other"),
    "seed": replace(WORK, data=replace(DATA, seed=1)),
    "guidance": replace(WORK, settings=replace(WORK.settings, teacher_cfg=2.0)),
    "steps": replace(WORK, settings=replace(WORK.settings, teacher_steps=2)),
    "rate": replace(WORK, settings=replace(WORK.settings, teacher_fps=8.0)),
    "prefix": replace(WORK, data=replace(DATA, caption_prefix="")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_makes_a_clip_another_one_makes_it_anew(other: str, tmp_path: Path) -> None:
    sampled(tmp_path, Sampler())
    again = Sampler()
    sampled(tmp_path, again, OTHERS[other])
    assert len(again.seen) == 6


@pytest.mark.parametrize(("value", "words"), [(0.0, "gave zeros"), (float("nan"), "not finite")])
def test_a_clip_that_nothing_can_be_learnt_from_is_refused(value: float, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{words} for the prompt 'a cat'"):
        sampled(tmp_path, lambda *_: torch.full((2, 4, 3, 2), value))
    assert not (tmp_path / "teacher").exists()


def test_a_damaged_clip_is_sampled_anew(tmp_path: Path) -> None:
    path = sampled(tmp_path, Sampler()).clips[2].latents
    path.write_bytes(path.read_bytes()[:50])
    again = Sampler()
    sampled(tmp_path, again)
    assert len(again.seen) == 1


def test_prompts_stand_one_a_line_each_once() -> None:
    assert read_prompts("a cat\n\n  a  dog \na cat\n") == ("a cat", "a dog")
    for empty in ("", " \n\t\n"):
        with pytest.raises(ValueError, match="no prompts for the teacher"):
            read_prompts(empty)


def test_of_the_teachers_clips_alone_some_are_held_out(tmp_path: Path) -> None:
    clips = with_teacher(None, sampled(tmp_path, Sampler()), validation_clips=4)
    assert clips.taught and clips.train.groups == (5,) and len(clips.held_out) == 1
    few = with_teacher(None, sampled(tmp_path, Sampler(), replace(WORK, prompts=("a cat",))), validation_clips=4)
    assert few.train.groups == (3,) and len(few.held_out) == 3


def test_beside_own_clips_those_of_the_teacher_come_last_and_none_is_held_out(tmp_path: Path) -> None:
    own, teachers = toy_data(count=5), sampled(tmp_path, Sampler())
    both = with_teacher(own, teachers, validation_clips=4)
    assert both.train.groups == (5, 6) and both.held_out == own.held_out and both.clip_count == 11
    assert with_teacher(replace(own, sources=1), teachers, validation_clips=4).clip_count == 1 + 6
    assert torch.equal(both.train[4].latents, own.train[4].latents)
    assert torch.equal(both.train[5].latents, teachers[0].latents)
    assert own.train.content in both.train.content and teachers.content in both.train.content


def test_a_prompt_that_names_an_embedding_is_sampled_anew_when_its_values_are_others(tmp_path: Path) -> None:
    class Naming(FakeEncoders):
        values = "one"

        def beside_words(self, caption: str) -> str:
            return self.values

    work = replace(WORK, prompts=("embedding:swell", "a cat"))
    seen = []
    for values in ("one", "one", "another"):
        sampler, Naming.values = Sampler(), values
        sampled_clips(work, tmp_path, Naming, sampler, lambda *told: None)
        seen.append(len(sampler.seen))
    assert seen == [6, 0, 3]
