"""What the host's callback is given while frames are sampled together, and the frame rate that an adaptor brings."""

from functools import update_wrapper

import latent_preview
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, trained
from torch import Tensor

from magicvideo.adaptor_unet.checkpoint import FPS
from magicvideo.adaptor_unet.host.causal_windows import Chunk
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.preview import MovingPreview, Progress
from magicvideo.nodes.adaptor import ApplyMagicVideo

FRAMES, STEPS = 4, 4


def test_each_step_shows_another_frame_and_the_last_call_has_all_in_order(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    told: list[tuple[Tensor, Tensor]] = []
    bound = bind(model, adaptor, order="together")
    out = sample(bound, FRAMES, steps=STEPS, callback=lambda step, x0, x, total: told.append((x0.clone(), x.clone())))
    torch.testing.assert_close(told[-1][0], model.model.process_latent_in(out), atol=1e-4, rtol=1e-4)
    noise = told[0][1]  # not begun yet: the frames in their order
    for step, (_, x) in enumerate(told[:-1]):
        nearest = (noise - x[:1]).flatten(1).norm(dim=1).argmin()
        assert nearest == step, "a frame is nearest to its own noise"


def test_a_sampler_that_ends_early_hands_on_the_frames_in_their_order() -> None:
    told: list[Tensor] = []
    preview, frames = MovingPreview(lambda step, x0, x, total: told.append(x0), FRAMES), torch.arange(FRAMES)
    preview.step(0, frames, frames, 8)
    preview.step(4, frames, frames, 8)
    assert told[-1].tolist() == [2, 3, 0, 1]
    preview.end()
    assert told[-1].tolist() == [0, 1, 2, 3] and len(told) == 3


def fps_given(model: ModelPatcher, adaptor: ModelPatcher, fps: float) -> tuple[float, float]:
    """The rate that Apply tells the motion, and the one that it hands on."""
    bound, handed_on = ApplyMagicVideo.execute(model, adaptor=adaptor, fps=fps).args
    (motion,) = bound.get_attachment("magicvideo").effects
    return motion.fps, handed_on


def test_fps_0_is_the_rate_that_the_adaptor_was_trained_with(model: ModelPatcher) -> None:
    adaptor = trained(fresh_adaptor(model))
    assert fps_given(model, adaptor, 0.0) == (8.0, 8.0), "a file that says nothing"
    adaptor.model.metadata[FPS] = "12.5"
    assert fps_given(model, adaptor, 0.0) == (12.5, 12.5)
    assert fps_given(model, adaptor, 24.0) == (24.0, 24.0)


@pytest.mark.parametrize("told", ["fast", "0", "-8", "nan", "inf"])
def test_a_file_that_tells_no_frame_rate_is_refused_only_where_it_is_asked(model: ModelPatcher, told: str) -> None:
    adaptor = trained(fresh_adaptor(model))
    adaptor.model.metadata[FPS] = told
    assert fps_given(model, adaptor, 8.0) == (8.0, 8.0)
    with pytest.raises(ValueError, match=f"trained at '{told}' frames a second.*Set fps"):
        fps_given(model, adaptor, 0.0)


@pytest.mark.parametrize(("others", "first"), [(False, 2), (True, 0)])
def test_a_preview_of_another_pack_gets_the_frames_in_their_order(
    others: bool, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as VideoHelperSuite's, which shows the whole batch as an animation."""

    def previewer(*given: object) -> None:
        return None

    if others:
        monkeypatch.setattr(latent_preview, "get_previewer", update_wrapper(previewer, latent_preview.get_previewer))
    told: list[Tensor] = []
    frames = torch.arange(FRAMES, dtype=torch.float32).reshape(-1, 1, 1, 1)
    MovingPreview(lambda step, x0, x, total: told.append(x0), FRAMES).step(4, frames, frames, 8)
    progress = Progress(lambda step, x0, x, total: told.append(x0.clone()), frames, STEPS, FRAMES, quiet=True)
    progress.begin(Chunk([2], FRAMES))
    progress.step(0, frames[2:3], frames[2:3], STEPS)
    assert [x.flatten().tolist() for x in told] == [frames.roll(-first, 0).flatten().tolist()] * 2
