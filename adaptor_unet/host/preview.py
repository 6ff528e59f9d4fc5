"""What a person sees while a clip is sampled: the host's preview with another frame at each step, and the time left.

The host's previews show the first latent of a batch.  Where all frames are sampled together, another one is put first
at each step, from the first to the last; where they are sampled one after the other, the one in the making.  Other
packs put previews of the whole batch in the place of the host's: those get the frames in their order.

Axes: n frames of the batch, c h w of a latent.
"""

from collections.abc import Callable

import latent_preview
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from torch import Tensor
from tqdm import tqdm

from .causal_windows import Chunk


def shows_one_frame() -> bool:
    """Whether previews are the host's own, as far as can be told: what other packs put there is in a file of theirs."""
    code = getattr(latent_preview.get_previewer, "__code__", None)
    return code is not None and code.co_filename == latent_preview.__file__


class MovingPreview:
    """A sampler's callback that hands the host's the frames ``n c h w`` rolled, so that another is the first.

    Whoever keeps what the last call was given gets the frames in their order: ``end`` calls once more where need be.
    """

    def __init__(self, callback: Callable, frames: int) -> None:
        self.callback, self.frames = callback, frames
        self.rolled: tuple[int, Tensor, Tensor, int] | None = None

    def step(self, step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        """The sampler's callback: ``step`` of ``total`` steps is done."""
        place = step * self.frames // total if step + 1 < total and shows_one_frame() else 0
        self.rolled = (step, denoised, x, total) if place else None
        self.callback(step, denoised.roll(-place, 0), x.roll(-place, 0), total)

    def end(self) -> None:
        """Sampling has ended."""
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
    """``n c h w``: runs the host's sampler for the whole batch, with a moving preview; arguments as the host's."""
    if callback is None:
        return executor(guider, sigmas, extra_args, None, noise, *args, **kwargs)
    preview = MovingPreview(callback, len(noise))
    samples = executor(guider, sigmas, extra_args, preview.step, noise, *args, **kwargs)
    preview.end()
    return samples


class Progress:
    """Tells the host's callback of one sampling over all chunks, and a person at the terminal of the time left.

    The host's own preview shows the first frame of what it is given: here that is the one in the making.  The last call
    has all frames in their order, for whoever keeps them.  ``denoised`` is what the model last took the chunk for.
    """

    def __init__(self, callback: Callable | None, latents: Tensor, steps: int, chunks: int, quiet: bool) -> None:
        self.callback, self.steps, self.total = callback, steps, steps * chunks
        self.batch = latents.clone(), latents.clone()  # what frames are taken for, and as they are
        self.begun = -1
        self.chunk: Chunk | None = None
        self.denoised: Tensor | None = None
        self.bar = tqdm(total=self.total, disable=quiet)

    def begin(self, chunk: Chunk) -> None:
        """The steps of this chunk follow."""
        self.begun, self.chunk, self.denoised = self.begun + 1, chunk, None

    def step(self, step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        """The sampler's callback, for one chunk.  Raises ValueError for latents that have got another size."""
        if denoised.shape[-2:] != self.batch[0].shape[-2:]:
            size, other = ("x".join(map(str, latents.shape[-2:])) for latents in (self.batch[0], denoised))
            raise ValueError(
                f"This sampler has made latents of {size} into {other}, but frames are sampled one after the other, "
                "and finished frames are seen at their size. Take another sampler, or set order to together."
            )
        self.denoised = denoised
        done = self.begun * self.steps + min(step, self.steps - 1)  # some samplers make steps as they see fit
        self.bar.update(done + 1 - self.bar.n)
        if self.callback is None:
            return
        for rows, own in zip(self.batch, (denoised, x), strict=True):
            self.chunk.put(rows, own)
        first = self.chunk.index_list[0] if done + 1 < self.total and shows_one_frame() else 0
        self.callback(done, *(rows.roll(-first, 0) for rows in self.batch), self.total)

    def end(self, samples: Tensor) -> None:
        """The chunk is done, and its frames are these, ``f c h w``."""
        self.chunk.put(self.batch[1], samples)

    def close(self) -> None:
        """Takes the bar off the terminal."""
        self.bar.close()
