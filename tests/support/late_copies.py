"""The streams of a card that is not there: copies beside the work are made as late as may be, when they are waited for.

Until then what is copied to holds no numbers, so that whoever reads it too early gets none, and what is copied from is
read as it is by then.  The work itself, on the main stream, is done at once; so a copy beside it must have waited for
all of the work before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import comfy.model_management
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from magicvideo.adaptor_unet import frame_layout
from magicvideo.adaptor_unet.offload import Offloaded, Streams


class Event:
    """A place in a stream's work."""

    def __init__(self, stream: "Stream", place: int) -> None:
        self.stream, self.place = stream, place

    def happen(self) -> None:
        self.stream.work(self.place)


class Stream:
    """As ``torch.cuda.Stream``; ``waited``: whether it waits for all that the main stream has done until now."""

    def __init__(self) -> None:
        self.tasks: list[Event | tuple[Tensor, Tensor]] = []
        self.done, self.waited = 0, False

    def work(self, until: int) -> None:
        while self.done < until:
            task = self.tasks[self.done]
            self.done += 1
            if isinstance(task, Event):
                task.happen()
            else:
                task[0].copy_(task[1])

    def record_event(self) -> Event:
        return Event(self, len(self.tasks))

    def wait_event(self, event: Event) -> None:
        self.tasks.append(event)

    def wait_stream(self, main: "Main") -> None:
        assert isinstance(main, Main)
        self.waited = True


class Main:
    """The main stream, which does at once whatever it is given."""

    def wait_event(self, event: Event) -> None:
        event.happen()


class LateCopies(TorchDispatchMode):
    """``copies`` counts those beside the work; ``late`` those back that were not begun before they were needed."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.streams = Main(), Streams(Stream(), Stream())
        self.now: Main | Stream = self.main
        self.copies = self.late = self.back = 0
        self.noted: set[tuple[int, int]] = set()  # memory that its allocator knows to be in use by a stream
        self.used: set[tuple[int, int]] = set()

    def __torch_dispatch__(self, func: OpOverload, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's own signature
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        if self.now is self.main:
            for stream in self.streams:
                stream.waited = False
            return func(*args, **kwargs)
        assert func is torch.ops.aten.copy_.default and kwargs.pop("non_blocking", args[2:] == (True,))
        assert self.now.waited, "the work before is not done"
        to, source = args[:2]
        to.fill_(torch.nan)
        self.now.tasks.append((to, source))
        self.copies += 1
        self.used.add((id(self.now), memory(source if self.now is self.streams.out else to)))
        return to

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        self.now = stream
        try:
            yield
        finally:
            self.now = self.main

    def note(self, x: Tensor, stream: Stream) -> None:
        self.noted.add((id(stream), memory(x)))

    def count(self, one: Offloaded) -> None:
        self.back += 1
        self.late += one.coming is None


def memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


@contextmanager
def late_copies() -> Iterator[LateCopies]:
    """This processor passes for a card whose copies run beside its work."""
    copies, take = LateCopies(), Offloaded.take
    with (
        mock.patch.object(frame_layout, "streams_of", lambda device: copies.streams),
        mock.patch.object(comfy.model_management, "NUM_STREAMS", 2),
        mock.patch.object(torch.cuda, "current_stream", lambda device: copies.main),
        mock.patch.object(torch.cuda, "stream", copies.on),
        mock.patch.object(Tensor, "record_stream", lambda x, stream: copies.note(x, stream)),
        mock.patch.object(Offloaded, "take", lambda one: (copies.count(one), take(one))[1]),
        copies,
    ):
        yield copies
