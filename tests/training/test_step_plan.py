"""What a step sees depends on seed and step alone."""

from collections import Counter

import pytest
import torch

from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.step_plan import draw_context, draw_timesteps, epoch_order, plan_step, seed_from


def test_every_clip_comes_once_an_epoch() -> None:
    settings = TrainingSettings(batch=2)
    items = [clip.item for step in range(10) for clip in plan_step(step, settings, (4, 6)).batch]
    assert Counter(items[:10]) == Counter(items[10:]) == Counter(range(10))
    assert items[:10] != items[10:]


def test_a_step_may_span_two_epochs_and_a_batch_be_larger_than_the_set() -> None:
    items = [clip.item for clip in plan_step(0, TrainingSettings(batch=7), (3,)).batch]
    assert Counter(items[:3]) == Counter(items[3:6]) == Counter(range(3))


def test_clips_of_one_group_come_in_one_run() -> None:
    order = epoch_order((3, 4, 5), 0, 0)
    group = [0 if item < 3 else 1 if item < 7 else 2 for item in order]
    assert sum(a != b for a, b in zip(group, group[1:], strict=False)) == 2
    assert order != sorted(order)


def test_no_chance_is_used_twice() -> None:
    settings = TrainingSettings(batch=3)
    seeds = [clip.seed for step in range(50) for clip in plan_step(step, settings, (2,)).batch]
    assert len(set(seeds)) == 150


def test_another_seed_gives_another_order_and_other_noise() -> None:
    one, other = (plan_step(0, TrainingSettings(seed=seed, batch=8), (8,)) for seed in (0, 1))
    assert [clip.item for clip in one.batch] != [clip.item for clip in other.batch]
    assert not {clip.seed for clip in one.batch} & {clip.seed for clip in other.batch}


def test_the_plan_of_a_step_is_the_same_today_and_tomorrow() -> None:
    """Values written down when the rule was made: a change would break every resumed run."""
    plan = plan_step(3, TrainingSettings(batch=2, seed=5), (2, 3))
    assert (plan.sees, [clip.item for clip in plan.batch]) == ("clips", [2, 3])
    assert seed_from("draw", 5, 6) == 47_722_893_419_375_740


@pytest.mark.parametrize(("still", "base"), [(0.0, 0.0), (0.3, 0.2), (1.0, 0.0), (0.0, 1.0)])
def test_kinds_of_steps_come_in_their_shares(still: float, base: float) -> None:
    settings = TrainingSettings(still_share=still, base_still_share=base, base_tuning="lora")
    seen = Counter(plan_step(step, settings, (1,)).sees for step in range(1000))
    assert seen["stills"] == pytest.approx(1000 * still, abs=50)
    assert seen["base_stills"] == pytest.approx(1000 * base, abs=50)
    assert seen["clips"] == pytest.approx(1000 * (1 - still - base), abs=50)


def timesteps(count: int, **settings: object) -> torch.Tensor:
    """Of ``count`` clips of 16 frames, ``n f``, out of 1000."""
    wanted, generator = TrainingSettings(**settings), torch.Generator().manual_seed(0)
    return torch.stack([draw_timesteps(wanted, 1000, 16, generator) for _ in range(count)])


def test_one_noise_level_a_clip_or_one_a_frame() -> None:
    one = timesteps(50, frame_noise_levels="one_a_clip")
    assert (one == one[:, :1]).all() and len(one.unique()) > 40
    for levels in ("one_a_frame", "finished_frames"):
        found = timesteps(400, frame_noise_levels=levels).float()
        assert found.mean() == pytest.approx(500, abs=15)
        assert torch.corrcoef(found.T).fill_diagonal_(0).abs().max() < 0.25


def test_a_share_of_clips_has_nearly_clean_frames_before_a_random_place() -> None:
    found = timesteps(2000, frame_noise_levels="clean_context", clean_context_share=0.6, context_timesteps=60)
    clean = (found < 60).long().cumprod(dim=1).sum(dim=1)  # frames that are nearly clean from the start on
    assert float((clean > 0).float().mean()) == pytest.approx(0.6 + 0.4 * 0.06, abs=0.04)
    assert set(range(1, 16)) <= set(clean.tolist())
    later = torch.stack([row[count:][-1] for row, count in zip(found, clean.clamp(max=15), strict=True)])
    assert later.float().mean() == pytest.approx(500, abs=30)


def test_a_still_has_no_later_frames_to_be_nearly_clean_for() -> None:
    settings, generator = TrainingSettings(frame_noise_levels="clean_context"), torch.Generator().manual_seed(0)
    found = torch.stack([draw_timesteps(settings, 1000, 1, generator) for _ in range(400)]).float()
    assert found.mean() == pytest.approx(500, abs=50)


@pytest.mark.parametrize("levels", ["one_a_clip", "one_a_frame", "finished_frames"])
def test_a_share_of_the_noise_levels_is_drawn_from_the_noisier_half(levels: str) -> None:
    for share in (0.0, 0.6, 1.0):
        found = timesteps(1500, frame_noise_levels=levels, high_noise_share=share)
        assert float((found >= 500).float().mean()) == pytest.approx(0.5 + share / 2, abs=0.05)
        assert found.max() < 1000


def test_a_model_with_few_timesteps_has_nearly_clean_ones_among_them() -> None:
    found = draw_context(TrainingSettings(context_timesteps=60), 10, 200, torch.Generator())
    assert found.max() < 10
