"""One decoded video frame as a picture: RGB, square pixels, upright.

Axes: h height, w width.
"""

import struct
from fractions import Fraction

import av
import av.filter
import torch
from einops import rearrange
from torch import Tensor

from .high_range import HLG, PQ, ordinary_range

# FFmpeg's number for a file that does not say how its colours were coded.
UNSPECIFIED = 2
# Then players take the standard of high definition from this many lines on, and that of television below.
LINES_OF_HD = 720


def upright_picture(frame: av.VideoFrame, pixel_aspect: float = 1.0) -> Tensor:
    """A decoded frame as a picture, h w 3 in uint8; transparent parts become white.

    ``pixel_aspect`` is a pixel's width by its height.  High dynamic range becomes what an ordinary screen shows, and
    the two half pictures of an interlaced frame one.
    """
    if frame.interlaced_frame:
        frame = deinterlaced(frame)
    coding = None
    if frame.colorspace == UNSPECIFIED:
        coding = "ITU709" if frame.height >= LINES_OF_HD else "ITU601"
    width = max(1, round(frame.width * pixel_aspect))
    transfer = int(getattr(frame, "color_trc", UNSPECIFIED))
    if transfer in (PQ, HLG):
        deep = frame.reformat(width=width, format="rgb48le", dst_colorspace="DEFAULT", interpolation="BICUBIC")
        return turned(ordinary_range(deep.to_ndarray(), transfer), display_matrix(frame))
    clear = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
    picture = frame.reformat(
        width=width,
        format="rgba" if clear else "rgb24",
        src_colorspace=coding,
        # Older PyAV heeds how the colours are coded only when it is told of another coding for the result.
        dst_colorspace="DEFAULT",
        interpolation="BICUBIC",
    )
    pixels = torch.from_numpy(picture.to_ndarray())
    return turned(on_white(pixels) if clear else pixels, display_matrix(frame))


def deinterlaced(frame: av.VideoFrame) -> av.VideoFrame:
    """The lines of the half picture that came first, and between them what FFmpeg draws along the edges in them."""
    graph = av.filter.Graph()
    chain = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)),
        graph.add("estdif", "mode=frame:deint=all"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    graph.push(frame)
    graph.push(None)
    return graph.pull()


def on_white(pixels: Tensor) -> Tensor:
    """h w 4 -> h w 3: a picture with transparency, put on white."""
    colour, cover = pixels[..., :3].to(torch.int32), pixels[..., 3:].to(torch.int32)
    return ((colour * cover + 255 * (255 - cover) + 127) // 255).to(torch.uint8)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """``a b c d`` of the file's note on how to turn the picture: (x, y) goes to (a x + c y, b x + d y)."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
            return a, b, c, d
    return 1, 0, 0, 1


def turned(picture: Tensor, matrix: tuple[int, int, int, int]) -> Tensor:
    """h w 3 -> h w 3 or w h 3: a picture turned by quarters and mirrored as the matrix says."""
    a, b, c, d = matrix
    if abs(a) < abs(b):
        picture, across, down = rearrange(picture, "h w c -> w h c"), c, b
    else:
        across, down = a, d
    mirrored = [axis for axis, sign in ((0, down), (1, across)) if sign < 0]
    return picture.flip(mirrored) if mirrored else picture
