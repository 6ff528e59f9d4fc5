"""Videos that a decoder shows otherwise than players do: with an alpha layer, and Dolby Vision on its own."""

from pathlib import Path
from types import SimpleNamespace

import av
import numpy
import pytest

from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError
from magicvideo.adaptor_unet.training.data.video_file import VideoFile
from magicvideo.adaptor_unet.training.data.video_layers import has_alpha_layer, why_left_out

UNSAID, PQ, HLG = 2, 16, 18
# HEVC messages behind two bytes of head, and the bit that ends a unit.  Kind 165: 8 bits of alpha, 0 to 255.
ALPHA = [165, 4, 0, 0, 127, 144]
OTHER_MESSAGE = bytes([78, 1, 5, 2, 9, 9, 128])
ALPHA_MESSAGE, BOTH_MESSAGES = bytes([78, 1, *ALPHA, 128]), bytes([78, 1, 5, 2, 9, 9, *ALPHA, 128])


def record(*lists: tuple[int, list[bytes]]) -> bytes:
    """An HEVC record with these units, by kind."""
    made = bytes([1, *[0] * 21, len(lists)])
    for kind, units in lists:
        made += bytes([128 | kind]) + len(units).to_bytes(2, "big")
        made += b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
    return made


def frame(alpha: bool = False, transfer: int = UNSAID, data: tuple[str, ...] = ()) -> SimpleNamespace:
    """As PyAV describes one."""
    components = [SimpleNamespace(is_alpha=False), SimpleNamespace(is_alpha=alpha)]
    side_data = [SimpleNamespace(type=SimpleNamespace(name=name)) for name in data]
    return SimpleNamespace(format=SimpleNamespace(components=components), side_data=side_data, color_trc=transfer)


SEE_THROUGH = record((32, [b"parameters"]), (39, [OTHER_MESSAGE, BOTH_MESSAGES]))


def test_an_alpha_layer_is_found_by_its_message() -> None:
    assert has_alpha_layer(SEE_THROUGH)
    for other in (None, b"", record((32, [b"parameters"]), (39, [OTHER_MESSAGE])), record((40, [ALPHA_MESSAGE]))):
        assert not has_alpha_layer(other)


@pytest.mark.parametrize("kept", range(len(SEE_THROUGH)))
def test_a_record_that_is_cut_off_is_read_as_far_as_it_goes(kept: int) -> None:
    assert not has_alpha_layer(SEE_THROUGH[:kept])


def test_a_decoder_that_gives_alpha_is_believed() -> None:
    assert "alpha layer" in why_left_out("hvc1", SEE_THROUGH, frame())
    assert why_left_out("hvc1", SEE_THROUGH, frame(alpha=True)) is None


@pytest.mark.parametrize(
    ("tag", "transfer", "data", "left_out"),
    [
        ("dvh1", UNSAID, (), True),
        ("DVHE", UNSAID, (), True),
        ("hvc1", UNSAID, ("DOVI_RPU_BUFFER",), True),
        ("hev1", UNSAID, ("DISPLAYMATRIX", "DOVI_METADATA"), True),
        ("hvc1", HLG, ("DOVI_METADATA",), False),
        ("dvh1", PQ, ("DOVI_METADATA",), False),
        ("hvc1", UNSAID, ("DISPLAYMATRIX",), False),
    ],
)
def test_dolby_vision_is_left_out_where_the_picture_below_it_is_for_no_other_player(
    tag: str, transfer: int, data: tuple[str, ...], left_out: bool
) -> None:
    why = why_left_out(tag, None, frame(transfer=transfer, data=data))
    assert (why is not None and "profile 5" in why) == left_out


def encoded(path: Path, tag: str, transfer: int | None = None, more: tuple[int, list[bytes]] | None = None) -> Path:
    """A short HEVC video of that name in the file; ``more`` is a list of units that joins its record."""
    with av.open(path, "w") as out:
        stream = out.add_stream(
            "libx265", rate=8, options={"x265-params": "log-level=none:bframes=0", "preset": "ultrafast"}
        )
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.codec_tag = "yuv420p10le", tag
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        for place, shade in enumerate((60, 120)):
            picture = av.VideoFrame.from_ndarray(numpy.full((64, 64, 3), shade, numpy.uint8), format="rgb24")
            picture.pts = place
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    if more is None:
        return path
    changed = path.with_stem("changed")
    with av.open(path) as source, av.open(changed, "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        old = stream.codec_context.extradata
        copy.codec_context.extradata = old[:22] + bytes([old[22] + 1]) + old[23:] + record(more)[23:]
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    return changed


def first_frame(path: Path) -> None:
    video = VideoFile(path)
    next(video.read(video.times[:1]))


def test_such_files_are_left_out_with_a_sentence_and_others_are_read(tmp_path: Path) -> None:
    first_frame(encoded(tmp_path / "plain.mp4", "hvc1"))
    first_frame(encoded(tmp_path / "below.mp4", "dvh1", HLG))
    with pytest.raises(ClipFileError, match=r"alone.mp4 is Dolby Vision of a kind .* \(profile 5\); convert it"):
        first_frame(encoded(tmp_path / "alone.mp4", "dvh1"))
    with pytest.raises(ClipFileError, match=r"is transparent, by an alpha layer .* put it on a background first"):
        first_frame(encoded(tmp_path / "alpha.mp4", "hvc1", more=(39, [ALPHA_MESSAGE])))
