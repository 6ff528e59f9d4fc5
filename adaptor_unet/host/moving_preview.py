"""The preview while a clip's frames are sampled together: another frame at each step, from the first to the last.

The host's previews show the first latent of a batch.  Where frames are made one after the other, ``causal_sampling``
shows the one in the making.
"""

from collections.abc import Callable

from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from torch import Tensor


class MovingPreview:
    """A sampler's callback that hands the host's the frames ``n c h w`` rolled, so that another is the first.

    Whoever keeps what the last call was given gets the frames in their order: ``end`` calls once more where need be.
    """

    def __init__(self, callback: Callable, frames: int) -> None:
        self.callback, self.frames = callback, frames
        self.rolled: tuple[int, Tensor, Tensor, int] | None = None

    def step(self, step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        place = step * self.frames // total if step + 1 < total else 0
        self.rolled = (step, denoised, x, total) if place else None
        self.callback(step, denoised.roll(-place, 0), x.roll(-place, 0), total)

    def end(self) -> None:
        if self.rolled is not None:
            self.callback(*self.rolled)


def sample_together(
    executor: WrapperExecutor,
    guider: CFGGuider,
    sigmas: Tensor,
    extra_args: dict[str, object],
    callback: Callable | None,
    noise: Tensor,
    *args: object,
    **kwargs: object,
) -> Tensor:
    """The host's sampler for the whole batch, ``n c h w``, with such a preview."""
    if callback is None:
        return executor(guider, sigmas, extra_args, None, noise, *args, **kwargs)
    preview = MovingPreview(callback, len(noise))
    samples = executor(guider, sigmas, extra_args, preview.step, noise, *args, **kwargs)
    preview.end()
    return samples
