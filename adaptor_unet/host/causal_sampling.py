"""Frame after frame: a clip is sampled chunk by chunk from its first frame on, each chunk given the finished frames.

A directed network cannot know where the frames to come will put a thing, so frames that are denoised together need not
agree (``docs/method.md``).  Given finished frames it can: ``p(x_0) p(x_1 | x_0) p(x_2 | x_0, x_1) ...``.

The sampler of whatever node samples runs once a chunk, inside the host's SAMPLER_SAMPLE wrapper: there the models are
loaded and the conditionings prepared, once for the whole batch.  Finished frames reach the network through the frame
cache, which one more call of the UNet a chunk fills, at a small noise level.

Axes: n frames of the batch, f frames of a chunk (of all clips), c h w of a latent.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from einops import rearrange, reduce
from torch import Tensor

from ..frame_layout import indices
from .call_part import ModelOptions, SamplerArguments
from .causal_windows import Chunk, chunk_options, rows_for, windows_of
from .content_of import qualified_name
from .effect import Effect
from .finished_frames import FinishedFrames
from .hook_schedules import HookSchedules
from .preview import Progress
from .sampling_order import SamplingOrder
from .versions import full_mask

logger = logging.getLogger(__name__)

# The host's nodes whose guidance grows over the frames of a batch, as their functions' names begin.  Others, which may
# call the model themselves, are given the frames of a chunk as they are.
COUNTING_FRAMES = ("VideoLinearCFGGuidance", "VideoTriangleCFGGuidance")


@dataclass(frozen=True)
class CausalSampling:
    """One sampling in an order, of clips of ``clip`` frames each.

    ``offload``: whether what is kept of the frames before waits in main memory.  ``given_first``: what to tell a person
    of effects where the first frame is given.
    """

    order: SamplingOrder
    clip: int
    offload: bool = False
    given_first: tuple[str, ...] = ()

    def sample(
        self,
        executor: WrapperExecutor,
        guider: CFGGuider,
        sigmas: Tensor,
        extra_args: SamplerArguments,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """n c h w, as the host's sampler gives it for a batch; arguments as the host's.

        Frames that a noise mask keeps are given: they are context, and cost no sampling.  Where noise is to be left in
        the end, as in the first half of a sampling in two nodes, the context is what the model takes for the frames;
        where noise rises from step to step (*FlipSigmas*), it is the frames that are there.
        """
        base, ends_clean = guider.inner_model, bool(sigmas[-1] == 0)
        rises = bool(sigmas[0] < sigmas[-1])
        kept = kept_frames(denoise_mask, len(noise))
        if any(kept) and noise.any() and float(sigmas[0]) >= float(base.model_sampling.sigma_max) * (1 - 1e-5):
            latent_image = emptied(latent_image, denoise_mask)
        least, order = float(base.model_sampling.sigma_min), self.order
        sigma = sigmas.new_tensor(max(order.context_noise, least))
        negative_sigma = sigmas.new_tensor(max(order.history_noise, least)) if order.history_noise else sigma
        device = torch.device("cpu") if self.offload else None
        hooks = HookSchedules(guider.conds.values(), sigmas)
        finished = FinishedFrames(latent_image.clone(), self.clip, sigma, negative_sigma, hooks, device)
        chunks = list(self.chunks(len(noise)))
        given = [ends_clean and all(kept[place] for place in chunk.index_list) for chunk in chunks]
        for sentence in self.given_first if given[0] else ():
            logger.warning(sentence)
        samples = latent_image.clone()
        progress = Progress(callback, latent_image, len(sigmas) - 1, given.count(False), disable_pbar)
        try:
            for chunk, is_given in zip(chunks, given, strict=True):
                if is_given:
                    finished.finish(chunk, chunk.get_tensor(latent_image))
                    continue
                finished.present = chunk
                progress.begin(chunk)
                hooks.begin_again(base, extra_args["model_options"])
                out = executor(
                    self.guider_for_chunk(guider, finished),
                    sigmas.clone(),  # a sampler may write into its sigmas
                    self.arguments_for_chunk(extra_args, chunk, finished),
                    progress.step,
                    chunk.get_tensor(noise),
                    chunk.get_tensor(latent_image),
                    None if denoise_mask is None else rows_for(denoise_mask, chunk.index_list),
                    True,  # no bar of its own: one goes on over all chunks
                )
                chunk.put(samples, out)
                progress.end(out)
                clean = out if ends_clean or progress.denoised is None else progress.denoised
                # As a latent wire would hand it on, so that a clip that is extended goes on bit for bit.
                clean = base.process_latent_in(base.process_latent_out(clean.float()))
                own = torch.tensor([not (rises or kept[place]) for place in chunk.index_list], device=clean.device)
                rows = torch.where(rearrange(own, "f -> f 1 1 1"), clean, chunk.get_tensor(latent_image).to(clean))
                finished.finish(chunk, rows)
        finally:
            progress.close()
            finished.clear()
        return samples

    def chunks(self, frames: int) -> Iterator[Chunk]:
        """The chunks of a batch of ``frames`` frames, in their order: each holds the same frames of all clips, side by
        side."""
        for start in range(0, self.clip, self.order.chunk):
            end = min(start + self.order.chunk, self.clip)
            places = [first + place for first in range(0, frames, self.clip) for place in range(start, end)]
            yield Chunk(places, frames)

    def guider_for_chunk(self, guider: CFGGuider, finished: FinishedFrames) -> CFGGuider:
        """The guider for the next chunk: finished frames tell what to make, so that it may need less guidance.

        The host asks for no negative conditioning where guidance is 1.  A guider of several guidances keeps its own.
        """
        if not (self.order.later_cfg and finished.chunks):
            return guider
        if type(guider).set_cfg is not CFGGuider.set_cfg or "negative" not in guider.conds:
            return guider
        later = copy.copy(guider)
        later.set_cfg(self.order.later_cfg)
        return later

    def arguments_for_chunk(
        self, extra_args: SamplerArguments, chunk: Chunk, finished: FinishedFrames
    ) -> SamplerArguments:
        """The sampler's arguments for a chunk.  Samplers that draw noise of their own draw another for each."""
        options = {name: value for name, value in extra_args["model_options"].items() if name != "context_handler"}
        seed = extra_args.get("seed")
        seed = seed if seed is None else (seed + 0x9E3779B9 * chunk.index_list[0]) % 2**63
        guidance = options.get("sampler_cfg_function")
        if guidance is not None and qualified_name(guidance).startswith(COUNTING_FRAMES):
            options["sampler_cfg_function"] = partial(guidance_of_all_frames, guidance, chunk)
        return {**extra_args, "model_options": chunk_options(options, chunk, finished), "seed": seed}


def causal_sampling(effects: Sequence[Effect], frames: int, model_options: ModelOptions) -> CausalSampling | None:
    """How a batch of so many frames is sampled one after the other; None where they are sampled together.

    Raises ValueError where it cannot be sampled so: clips of several lengths in a batch, context windows of the host.
    """
    orders = [effect.sampling_order for effect in effects if effect.sampling_order]
    if not orders or frames == 1:
        return None
    remedy = f"set order of {node_that_orders(effects)} to together."
    lengths = {effect.frames_per_clip or frames for effect in effects if effect.strength}
    if len(lengths) > 1:
        raise ValueError(
            f"Frames are sampled one after the other, but the nodes count {', '.join(map(str, sorted(lengths)))} "
            f"frames a clip. Give all the same frames_per_clip, or {remedy}"
        )
    windows = windows_of(model_options)
    if windows is None and "context_handler" in model_options:
        raise ValueError(
            "Frames are sampled one after the other, which needs no context windows. Take the node for context "
            f"windows out, or {remedy}"
        )
    chunk = min([order.chunk for order in orders] + ([windows.chunk_frames] if windows else []))
    highest = {x: max(getattr(order, x) for order in orders) for x in ("context_noise", "later_cfg", "history_noise")}
    order = SamplingOrder(chunk, **highest)
    told = tuple(effect.given_first for effect in effects if effect.strength and effect.given_first)
    return CausalSampling(order, lengths.pop(), windows is not None and windows.offload, told)


def node_that_orders(effects: Sequence[Effect]) -> str:
    """The first node that wants frames sampled one after the other, by its display name; none if there is no such."""
    return next((effect.node for effect in effects if effect.sampling_order), "")


def with_kept_frames(samples: Tensor, given: Tensor, noise_mask: Tensor | None) -> Tensor:
    """``f c h w`` of the samples, with each frame whose mask is 0 everywhere taken from ``given``, bit for bit.

    The host's samplers arrive at these frames by sums, which round.
    """
    if noise_mask is None:
        return samples
    mask = full_mask(noise_mask, samples.shape).to(samples.device)
    return torch.where(reduce(mask, "f c h w -> f 1 1 1", "max") == 0, given.to(samples), samples)


def emptied(latents: Tensor, denoise_mask: Tensor) -> Tensor:
    """``n c h w`` with the frames that are made wholly anew empty.

    Where a clip is extended they hold what they were filled up with, of which a trace would be left at full noise: the
    clip would not be the one that is made at once.
    """
    least = reduce(denoise_mask, "n ... -> n", "min")
    anew = (least == 1).expand(len(latents)) if len(least) == 1 else least == 1
    anew = rearrange(anew, "n -> n 1 1 1").to(latents.device)
    return torch.where(anew, torch.zeros_like(latents), latents)


def guidance_of_all_frames(guidance: Callable[[dict], Tensor], chunk: Chunk, given: dict) -> Tensor:
    """``f c h w``: what a guidance function that counts the frames of the batch gives for those of a chunk.

    Such is the host's Video Linear CFG Guidance, whose guidance grows from the first frame of the batch to the last.
    The other frames, which it is shown to count right, are the chunk's over again.
    """

    def for_all(value: object) -> object:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        batch = value[indices(tuple(place % len(value) for place in range(chunk.total_frames)), value.device)]
        chunk.put(batch, value)
        return batch

    return chunk.get_tensor(guidance({name: for_all(value) for name, value in given.items()}))


def kept_frames(denoise_mask: Tensor | None, frames: int) -> list[bool]:
    """Which frames a noise mask, ``n c h w`` or ``1 c h w``, leaves wholly as they are."""
    if denoise_mask is None:
        return [False] * frames
    most = reduce(denoise_mask, "n ... -> n", "max").tolist()
    return [most[place % len(most)] == 0 for place in range(frames)]
