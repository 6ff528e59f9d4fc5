"""Clips are read as players show them: transparent video, high dynamic range, every ending that can be read."""

import logging
from pathlib import Path

import av
import numpy
import pytest
from PIL import Image

from made_clips import grey, greys, numbers, write_picture, write_video
from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError, find_clips
from magicvideo.adaptor_unet.training.data.frame_source import open_clip
from magicvideo.adaptor_unet.training.data.video_file import VideoFile


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_a_transparent_webm_is_on_white_from_its_first_frame_and_from_the_middle(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.gop_size, stream.options = "yuva420p", 4, {"auto-alt-ref": "0"}
        for number in range(12):
            pixels = numpy.zeros((64, 64, 4), numpy.uint8)
            pixels[:32, :, :3], pixels[:32, :, 3] = 10 + 10 * number, 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgba")))
        container.mux(stream.encode())
    video = VideoFile(path)
    frames = list(video.read(video.times))
    assert len(frames) == 12
    for number, frame in enumerate(frames):
        assert frame[40:].float().mean() > 250, "what is transparent is white"
        assert abs(float(frame[:24].float().mean()) - 10 - 10 * number) < 6
    assert (next(video.read(video.times[9:10])) == frames[9]).all()


def high_range_clip(path: Path, level: float, transfer: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
        stream.options = {"x265-params": f"log-level=none:{colours}"}
        for _ in range(4):
            pixels = numpy.full((64, 64, 3), round(level * 65535), numpy.uint16)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb48le").reformat(format="yuv420p10le", dst_colorspace=9)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("transfer", "white"), [("arib-std-b67", 0.75), ("smpte2084", 0.58)])
def test_the_white_of_a_high_range_clip_is_nearly_white_and_its_lights_are_whiter(
    tmp_path: Path, transfer: str, white: float
) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV has no libx265")
    shown = []
    for level in (0.0, white, 1.0):
        frame = next(VideoFile(high_range_clip(tmp_path / "a.mp4", level, transfer)).read([0.0]))
        shown.append(float(frame.float().mean()))
    assert shown[0] < 2 and 240 < shown[1] < 252 and shown[2] > 253


ENDINGS = {
    "a.ts": "mpeg2video",
    "b.m2ts": "libx264",
    "c.wmv": "wmv2",
    "d.asf": "wmv2",
    "e.flv": "flv",
    "f.3gp": "mpeg4",
    "g.ogv": "libtheora",
    "h.vob": "mpeg2video",
    "i.qt": "mpeg4",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_that_the_reader_can_read_is_a_clip(tmp_path: Path, name: str) -> None:
    if ENDINGS[name] not in av.codecs_available:
        pytest.skip(f"this PyAV has no {ENDINGS[name]}")
    made = write_video(tmp_path / f"{name}.{'mov' if name.endswith('qt') else name[2:]}", greys(12), ENDINGS[name], 25)
    made.rename(tmp_path / name)
    (clip,) = find_clips(tmp_path)
    source = open_clip(clip, 8)
    assert numbers(list(source.read(source.times))) == list(range(12))


@pytest.mark.parametrize("ending", ["png", "apng", "avif"])
def test_an_animated_picture_is_a_clip_with_its_delays(tmp_path: Path, ending: str) -> None:
    first, *rest = (Image.fromarray(grey(number)) for number in range(0, 30, 6))
    try:
        first.save(
            tmp_path / f"a.{ending}",
            "AVIF" if ending == "avif" else "PNG",
            save_all=True,
            append_images=rest,
            duration=[100, 200, 100, 100, 100],
        )
    except KeyError:
        pytest.skip("this Pillow has no AVIF")
    write_picture(tmp_path / "still.png")
    clip, still = find_clips(tmp_path)
    source = open_clip(clip, 8)
    assert (clip.kind, still.kind) == ("animation", "still")
    assert source.times == pytest.approx([0, 0.1, 0.3, 0.4, 0.5]) and source.end == pytest.approx(0.6)
    assert numbers(list(source.read(source.times))) == list(range(0, 30, 6))


def test_the_picture_in_front_of_an_animation_is_none_of_its_frames(tmp_path: Path) -> None:
    first, *rest = (Image.fromarray(grey(number)) for number in range(4))
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, duration=100, default_image=True)
    source = open_clip(find_clips(tmp_path)[0], 8)
    assert numbers(list(source.read(source.times))) == [1, 2, 3]


def test_files_that_are_passed_over_are_named_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_picture(tmp_path / "still.png")
    for name in ("a.heic", "b.mxf", "c.zip", "d.psd", "e.docx", "f.xyz", "notes.txt", ".hidden.mxf"):
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        find_clips(tmp_path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert (
        line
        == "Passed over 6 files that are no clips by their endings: a.heic, b.mxf, c.zip, d.psd, e.docx and 1 more."
    )


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_numbers_of_which_nobody_says_which_is_white_are_named(tmp_path: Path, kind: str) -> None:
    """As they are, the first would become black and the second white."""
    ramp = numpy.linspace(0, 1, 64 * 48).reshape(48, 64)
    Image.fromarray((ramp * (1 if kind == "float32" else 2**30)).astype(kind)).save(tmp_path / "a.tif")
    (clip,) = find_clips(tmp_path)
    with pytest.raises(ClipFileError, match=r"a.tif cannot be read as a picture \(its values are .* 8 or 16 bits"):
        list(open_clip(clip, 8).read([0.0]))


def test_sixteen_bits_and_pages_are_read_and_further_pages_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = Image.fromarray(numpy.full((48, 64), 32768, numpy.uint16))
    half.save(tmp_path / "a.tif", save_all=True, append_images=[half, half])
    half.save(tmp_path / "b.png")
    for clip in find_clips(tmp_path):
        assert next(open_clip(clip, 8).read([0.0])).unique().tolist() == [128]
    assert "a.tif holds 3 pages, of which the first is taken" in caplog.text and "b.png" not in caplog.text


def test_a_damaged_frame_makes_no_stills_of_the_others(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / "wave" / f"{number}.png", number)
    (tmp_path / "wave" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert [clip.kind for clip in find_clips(tmp_path)] == ["pictures"]
