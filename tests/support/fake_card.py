"""A model on a card that is not there: weights are fake tensors on ``cuda:0``, so that copies and reads can be counted.

Fake tensors have shape, dtype and device, and no numbers.  What mixes devices fails as it does on a card.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from magicvideo.adaptor_unet import frame_layout, motion_module, rotary, temporal_attention

CARD = torch.device("cuda:0")
CACHES = (
    frame_layout.indices,
    frame_layout.directed_mask,
    temporal_attention.later_frames,
    rotary.rotation,
    motion_module.encoding_in_call,
    motion_module.mask_of_clips,
)


class Waits(TorchDispatchMode):
    """Counts what makes the processor wait for a card, or the other way round: copies between the two, and reads.

    ``found`` holds the lines of the pack, or of others where no line of the pack is near, with their counts.
    ``kernels`` counts what runs on the card, where an operation of torch is one, and ``written`` the bytes that these
    write there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.kernels = self.written = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's own signature
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, FakeTensor):
                x.constant = None  # or what is known of a small number would be copied to the card for real
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.ndim > 0]
        new = written(func, tree_leaves((args, kwargs)), tree_leaves(out))
        self.kernels += bool(new)
        self.written += sum(x.nbytes for x in new)
        if len({x.device.type for x in tensors} - {"meta"}) > 1:
            self.found[f"{line()}: {func}"] += 1
        return out


def written(func: OpOverload, given: list, out: list) -> list[Tensor]:
    """What an operation writes on the card: all that it gives out, unless that lies where it was."""
    found = [x for x in out if isinstance(x, Tensor) and x.device.type == "cuda"]
    if func._schema.is_mutable:
        return found
    there = {x.untyped_storage()._cdata for x in given if isinstance(x, Tensor)}
    return [x for x in found if x.untyped_storage()._cdata not in there]


def line() -> str:
    """The innermost line of the pack that is being run."""
    stack = traceback.extract_stack()
    ours = [frame for frame in stack if "/adaptor_unet/" in frame.filename]
    frame = ours[-1] if ours else stack[-3]
    return f"{frame.filename.rsplit('/adaptor_unet/', 1)[-1]}:{frame.lineno} {frame.line}"


@contextmanager
def fake_card(*models: ModelPatcher) -> Iterator[None]:
    """The networks' weights are on a card that is not there, for as long as the context lasts."""
    clear_caches()
    kept = []
    try:
        with (
            FakeTensorMode(allow_non_fake_inputs=True),
            mock.patch.object(comfy.model_management, "get_free_memory", free),
        ):
            for network in (patcher.model for patcher in models):
                for module in network.modules():
                    kept += [(module, name, value) for name, value in module._parameters.items() if value is not None]
            for module, name, value in kept:
                fake = torch.empty(value.shape, dtype=value.dtype, device=CARD)
                module._parameters[name] = nn.Parameter(fake, requires_grad=False)
            yield
    finally:
        for module, name, value in kept:
            module._parameters[name] = value
        clear_caches()


def call(bound: ModelPatcher, frames: int, size: int = 16, **options: object) -> Waits:
    """One call of the UNet with both sides of guidance, as the host makes it while it samples; on a card that is not
    there.  ``size``: latent height and width; ``options`` join those of the call."""
    rows, unet = 2 * frames, bound.model.diffusion_model
    channels = bound.model.model_config.unet_config["context_dim"]
    given = {
        **bound.model_options["transformer_options"],
        "wrappers": bound.wrappers,
        "cond_or_uncond": [0, 1],
        "uuids": ["wanted", "not wanted"],
        "sigmas": torch.empty(1, device=CARD),
        **options,
    }
    x = torch.empty(rows, 4, size, size, dtype=unet.dtype, device=CARD)
    text = torch.empty(rows, 77, channels, dtype=unet.dtype, device=CARD)
    with Waits() as waits:
        unet(x, torch.empty(rows, device=CARD), context=text, transformer_options=given)
    return waits


def fused(function: Callable, q: Tensor, *args: object, **kwargs: object) -> Tensor:
    """Attention as a card has it, for the host's ``optimized_attention_override``: one kernel, which writes what comes
    out and no scores."""
    return torch.empty_like(q)


def free(device: object = None, torch_free_too: bool = False) -> int | tuple[int, int]:
    """What the host asks a card for in attention: its free memory, in bytes."""
    return (2**34, 2**34) if torch_free_too else 2**34


def clear_caches() -> None:
    """Fake tensors must not outlast their mode."""
    for cache in CACHES:
        cache.cache_clear()
