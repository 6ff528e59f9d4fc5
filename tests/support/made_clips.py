"""Clips made in the test: each frame is one grey, so that it can be told which frame was read."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

STEP = 6


def grey(number: int, size: tuple[int, int] = (64, 48)) -> numpy.ndarray:
    """Frame ``number`` of at most 40: h w 3 in uint8."""
    return numpy.full((size[1], size[0], 3), 10 + STEP * number, numpy.uint8)


def number_of(frame: Tensor) -> int:
    """Which frame this is, after whatever a codec did to it."""
    return round((frame.to(torch.float32).mean().item() - 10) / STEP)


def numbers(frames: Sequence[Tensor]) -> list[int]:
    return [number_of(frame) for frame in frames]


def greys(count: int, size: tuple[int, int] = (64, 48)) -> list[numpy.ndarray]:
    return [grey(number, size) for number in range(count)]


def corners(size: tuple[int, int] = (64, 48)) -> numpy.ndarray:
    """Red, green, blue and grey quarters, from the top left in reading order."""
    width, height = size
    picture = numpy.empty((height, width, 3), numpy.uint8)
    picture[: height // 2, : width // 2] = 200, 30, 30
    picture[: height // 2, width // 2 :] = 30, 180, 30
    picture[height // 2 :, : width // 2] = 30, 30, 200
    picture[height // 2 :, width // 2 :] = 120, 120, 120
    return picture


def corner_names(frame: Tensor) -> str:
    """The quarters of a picture of ``corners``, in reading order: "rgbx" when it is upright."""
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    names = ""
    for top in (0, height):
        for left in (0, width):
            colour = frame[top : top + height, left : left + width].to(torch.float32).mean((0, 1))
            names += "x" if colour.max() - colour.min() < 40 else "rgb"[int(colour.argmax())]
    return names


def write_video(
    path: Path,
    frames: Sequence[numpy.ndarray],
    codec: str = "mpeg4",
    fps: int = 10,
    milliseconds: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    turn: tuple[int, bool] | None = None,
    key_every: int = 8,
    colours: int | None = None,
    bits: int = 4_000_000,
) -> Path:
    """A video of the given frames, each shown at one of ``milliseconds`` or all at a constant rate.

    ``turn`` is how the file says to turn the picture, counter-clockwise in degrees, and whether to mirror it first;
    ``colours`` FFmpeg's number for how they are coded; ``bits`` a second, by default enough that no codec rounds one
    grey to the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.options = options or {}
        stream.gop_size = key_every
        stream.bit_rate = bits
        if turn is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write how a picture is turned")
            stream.set_display_rotation(turn[0], hflip=turn[1])
        if colours is not None:
            stream.codec_context.colorspace = colours
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixel_values in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel_values, "rgb24")
            if colours is not None:
                frame = frame.reformat(format=pixels, dst_colorspace=colours)
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        kind = stream.codec_context.format.name
        samples = numpy.zeros((1, 2048), "int16" if kind == "s16" else "float32")
        frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_animation(
    path: Path, count: int, milliseconds: Sequence[int] | int, size: tuple[int, int] = (64, 48)
) -> Path:
    """A GIF or WebP whose frames stay for the given times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(frame) for frame in greys(count, size))
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, lossless=True, loop=0)
    return path


def write_picture(path: Path, number: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey(number, size)).save(path)
    return path


def damage(path: Path, number: int) -> Path:
    """Overwrites the packet of one frame, counted as the file stores them; in an MPEG file about where that lies."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, length = packets[number]
    if start is None:
        start = len(content) * number // len(packets)
    content[start + 6 : start + length] = bytes((37 * place) % 256 for place in range(length - 6))
    path.write_bytes(content)
    return path
