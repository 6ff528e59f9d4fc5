"""A tensor that waits in main memory while a card works on; the copies there and back run beside that work.

Each way has a stream of its own, and main memory is pinned, so that nobody waits but where it must be:

- a copy out, for the work that makes the tensor; and the tensor's memory on the card, for the copy out;
- a copy back, for the copy out, and for the work that has used its memory before;
- whoever takes the tensor, for the copy back.

Pinned memory that is let go of waits for its copies by itself: torch's allocator notes them.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Streams(NamedTuple):
    """The two streams of a card in which tensors are copied to main memory and back."""

    out: torch.cuda.Stream
    back: torch.cuda.Stream


@lru_cache(maxsize=16)
def streams_of(device: torch.device) -> Streams | None:
    """The streams of a card; None for devices that copy and compute one after the other."""
    if device.type != "cuda":
        return None
    return Streams(torch.cuda.Stream(device), torch.cuda.Stream(device))


class Offloaded:
    """A tensor of a card in main memory; ``take`` gives it back on the card, bit for bit."""

    def __init__(self, x: Tensor, streams: Streams) -> None:
        self.device, self.streams = x.device, streams
        self.kept = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        streams.out.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(streams.out):
            self.kept.copy_(x, non_blocking=True)
        x.record_stream(streams.out)
        self.copied = streams.out.record_event()
        self.coming: tuple[Tensor, torch.cuda.Event] | None = None

    def fetch(self) -> None:
        """Begins to bring it back, unless it is on its way: for whoever knows that it will be taken soon."""
        if self.coming is not None:
            return
        here, back = torch.empty(self.kept.shape, dtype=self.kept.dtype, device=self.device), self.streams.back
        back.wait_event(self.copied)
        back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(back):
            here.copy_(self.kept, non_blocking=True)
        here.record_stream(back)
        self.coming = here, back.record_event()

    def take(self) -> Tensor:
        """The tensor on the card.  Its copy in main memory stays, for the next time."""
        self.fetch()
        (here, arrived), self.coming = self.coming, None
        torch.cuda.current_stream(self.device).wait_event(arrived)
        return here
