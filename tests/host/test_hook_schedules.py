"""A LoRA with a schedule (Set Hook Keyframes) acts on every frame of a clip as on one picture, frame by frame too."""

import comfy.hooks
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, conditioning, trained

from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

PLACE = "diffusion_model.out.2.weight"
FRAMES, STEPS = 3, 4


def scheduled(*keyframes: tuple[float, float]) -> comfy.hooks.HookGroup:
    """A change of one weight, with a strength from a part of sampling on."""
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=1.0)
    change = 0.1 * torch.randn(4, 64, 3, 3, generator=torch.Generator().manual_seed(3))
    hook.weights, hook.need_weight_init = {PLACE: ("diff", (change,))}, False
    for begins, strength in keyframes:
        hook.hook_keyframe.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=begins))
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group


def told(*keyframes: tuple[float, float]) -> dict[str, list]:
    """Both sides of guidance, with one schedule."""
    group = scheduled(*keyframes)
    sides = {"positive": conditioning(1), "negative": conditioning(2)}
    return {side: [[text, {**named, "hooks": group}] for text, named in entries] for side, entries in sides.items()}


@pytest.mark.parametrize("keyframes", [((0.0, 1.0), (0.5, 0.0)), ((0.0, 0.0), (0.5, 1.0))])
def test_every_frame_has_the_schedule_of_a_picture(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, keyframes: tuple
) -> None:
    picture = sample(model, FRAMES, steps=STEPS, **told(*keyframes))
    # So weak that nothing but the way of sampling differs.
    weak = bind(model, adaptor, order="frame by frame", strength=1e-9)
    frames = sample(weak, FRAMES, steps=STEPS, **told(*keyframes))
    assert [relative(frames[i], picture[i]) <= 1e-4 for i in range(FRAMES)] == [True] * FRAMES
    assert relative(picture, sample(model, FRAMES, steps=STEPS)) > 0.01, "the schedule does nothing"


def test_finished_frames_are_shown_as_they_were_at_the_end(model: ModelPatcher, sample: Sampler) -> None:
    """What acts in the first half alone has no part in how frame 0 is seen by the frames behind it."""
    moving = bind(model, trained(fresh_adaptor(model, frames=FRAMES), size=1.0), order="frame by frame")
    calls: list[tuple[float, float]] = []
    prepare = comfy.hooks.HookKeyframeGroup.prepare_current_keyframe
    words = told((0.0, 1.0), (0.5, 0.0))
    (group,) = {id(entry[1]["hooks"]): entry[1]["hooks"] for entry in words["positive"]}.values()
    schedule = group.hooks[0].hook_keyframe

    def noted(curr_t: torch.Tensor, transformer_options: dict) -> bool:
        changed = prepare(schedule, curr_t, transformer_options)
        calls.append((float(curr_t), schedule.strength))
        return changed

    schedule.prepare_current_keyframe = noted
    sample(moving, 2, steps=STEPS, **words)
    del schedule.prepare_current_keyframe
    least = min(sigma for sigma, _ in calls)
    assert {strength for sigma, strength in calls if sigma == least} == {0.0}
    most = max(sigma for sigma, _ in calls)
    assert {strength for sigma, strength in calls if sigma == most} == {1.0}


def test_causal_windows_keep_the_schedule_too(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    together = bind(model, adaptor, order="together")
    words = ((0.0, 0.0), (0.5, 1.0))
    whole = sample(together, FRAMES, steps=STEPS, **told(*words))
    assert relative(sample(with_causal_windows(together, 1), FRAMES, steps=STEPS, **told(*words)), whole) <= 1e-4
