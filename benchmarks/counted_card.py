"""A card that is not there, for training: tensors that have shapes and no numbers, and the bytes that they hold.

Counted are the storages that live at one time, each rounded up to 512 bytes as torch's allocator does.  The tensors lie
on ``meta``, because gradients of tensors on ``cuda`` need a driver; attention and precision are a card's all the same.
"""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from unittest import mock

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary

from magicvideo.adaptor_unet.host import training_unet
from magicvideo.tests.support.fake_card import clear_caches, free

CARD = torch.device("meta")
# Of torch's allocator: no piece of memory is smaller than this, or no multiple of it.
PIECE = 512
# Of the functions that are called here: what autocast computes in half precision on a card, and what in whole.
IN_HALF = {"linear", "conv2d", "matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "addmm", "einsum"}
IN_HALF |= {"scaled_dot_product_attention"}
IN_WHOLE = {"group_norm", "layer_norm", "softmax", "exp", "log", "pow", "__pow__", "rsqrt", "sum", "norm"}
HALVES = (torch.float16, torch.bfloat16)
# The widest heads that flash attention takes.
FLASH_CHANNELS = 256


class Held(TorchDispatchMode):
    """Bytes that tensors hold on the card: ``now``, and the ``most`` since somebody has set it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's own signature
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.device == CARD:
                self._hold(x.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = -(-storage.nbytes() // PIECE) * PIECE
        self._known[storage] = size
        weakref.finalize(storage, self._let_go, size)
        self.now += size
        self.most = max(self.most, self.now)

    def _let_go(self, size: int) -> None:
        self.now -= size


class CardAttention(TorchFunctionMode):
    """torch's attention by the kernels that a card takes: flash attention in half precision, else the other one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's own signature
        if func is torch.nn.functional.scaled_dot_product_attention:
            return fused(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def autocast(dtype: torch.dtype) -> AbstractContextManager:
    """What torch's autocast is on a card; nothing in whole precision."""
    return CardAutocast(dtype) if dtype in HALVES else nullcontext()


class CardAutocast(TorchFunctionMode):
    """torch's autocast as it is on a card, for tensors that are on none."""

    def __init__(self, half: torch.dtype) -> None:
        super().__init__()
        self.half = half

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's own signature
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in IN_HALF:
            args, kwargs = tree_map(self._halved, (args, kwargs))
        elif name in IN_WHOLE:
            args, kwargs = tree_map(whole, (args, kwargs))
        return func(*args, **kwargs)

    def _halved(self, x: object) -> object:
        return x.to(self.half) if isinstance(x, Tensor) and x.is_floating_point() else x


def whole(x: object) -> object:
    """A tensor in half precision in whole precision; all else as it is."""
    return x.float() if isinstance(x, Tensor) and x.dtype in HALVES else x


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: object,
) -> Tensor:
    """Attention by the kernels of a card; arguments as for torch's own."""
    kernels = torch.ops.aten
    if attn_mask is None and q.dtype in HALVES and q.shape[-1] <= FLASH_CHANNELS:
        return kernels._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    bias = None
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=q.dtype).expand(*q.shape[:-1], k.shape[-2])
    return kernels._scaled_dot_product_efficient_attention(q, k, v, bias, True, dropout_p, is_causal, scale=scale)[0]


def card_attention(chosen: object, *args: object, **kwargs: object) -> Tensor:
    """For the host's ``optimized_attention_override``: what it takes on a card, whatever it has chosen here."""
    return attention_pytorch(*args, **kwargs)


@contextmanager
def computed_again(dtype: torch.dtype) -> Iterator[None]:
    """On the way back, which leaves modes like these."""
    with CardAttention(), autocast(dtype):
        yield


@contextmanager
def counted_card(dtype: torch.dtype) -> Iterator[Held]:
    """In the context, what is on the card is counted, and nothing is computed; what is there computes in ``dtype``."""
    checkpointed = partial(checkpoint, context_fn=lambda: (nullcontext(), computed_again(dtype)))
    changed = {
        (comfy.model_management, "get_free_memory"): free,
        (comfy.model_management, "pytorch_attention_enabled_vae"): lambda: True,
        (training_unet, "checkpoint"): checkpointed,
        (torch.utils.checkpoint, "_infer_device_type"): lambda *_: "cpu",  # which it would ask for its random numbers
    }
    clear_caches()
    try:
        with ExitStack() as stack:
            for (place, name), value in changed.items():
                stack.enter_context(mock.patch.object(place, name, value))
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(CardAttention())
            yield stack.enter_context(Held())
    finally:
        clear_caches()
