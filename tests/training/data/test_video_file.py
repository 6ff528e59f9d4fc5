"""Videos of every container, codec and oddity that people have, made in the test."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
import torch
from PIL import Image

from made_clips import (
    corner_names,
    corners,
    damage,
    grey,
    greys,
    number_of,
    numbers,
    write_animation,
    write_sound,
    write_video,
)
from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError
from magicvideo.adaptor_unet.training.data.video_file import VideoFile

FORMATS = {
    "h264.mp4": ("libx264", {}),
    "mpeg4.mp4": ("mpeg4", {}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none"}),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9.webm": ("libvpx-vp9", {"lag-in-frames": "16"}),
    "h264.mkv": ("libx264", {}),
    "ffv1.mkv": ("ffv1", {}),
    "mpeg4.mov": ("mpeg4", {}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "h264.avi": ("libx264", {}),
    "mpeg2.mpeg": ("mpeg2video", {"bf": "2"}),
}
OPEN_GROUPS = {
    "libx264": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-pyramid=2"},
    "libx265": {"x265-params": "log-level=none:open-gop=1:keyint=8:min-keyint=8:bframes=4"},
}


def needs(codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")


def read_all(path: Path) -> list[torch.Tensor]:
    video = VideoFile(path)
    return list(video.read(video.times))


def refusal(path: Path) -> str:
    with pytest.raises(ClipFileError) as caught:
        read_all(path)
    assert caught.value.path == path and str(caught.value) == f"{path.name} {caught.value.reason}."
    return caught.value.reason


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_its_frames_in_order_and_any_of_them_alone(tmp_path: Path, name: str) -> None:
    codec, options = FORMATS[name]
    needs(codec)
    path = write_video(tmp_path / name, greys(30), codec, fps=25, options=options)
    video = VideoFile(path)
    assert video.times == pytest.approx([number / 25 for number in range(30)], abs=1e-3)
    assert video.end == pytest.approx(30 / 25, abs=2e-3)
    frames = list(video.read(video.times))
    assert numbers(frames) == list(range(30))
    assert all(frame.shape == (48, 64, 3) and frame.dtype == torch.uint8 for frame in frames)
    for chosen in ([29], [0], [7, 8], [3, 20, 21], [17, 17, 17], list(range(1, 30, 4))):
        alone = video.read([video.times[number] for number in chosen])
        assert all(torch.equal(frame, frames[number]) for frame, number in zip(alone, chosen, strict=True))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", OPEN_GROUPS)
def test_frames_around_key_frames_that_lean_on_the_ones_before_are_read(
    tmp_path: Path, codec: str, ending: str
) -> None:
    needs(codec)
    path = write_video(tmp_path / f"a.{ending}", greys(40), codec, options=OPEN_GROUPS[codec])
    video = VideoFile(path)
    frames = list(video.read(video.times))
    for number, time in enumerate(video.times):
        assert torch.equal(next(video.read([time])), frames[number])


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_times_are_read_without_decoding(tmp_path: Path, ending: str) -> None:
    path = damage(write_video(tmp_path / f"a.{ending}", greys(30)), 12)
    assert len(VideoFile(path).times) == 30


def test_a_frame_far_into_the_file_is_reached_by_its_key_frame(tmp_path: Path) -> None:
    path = damage(write_video(tmp_path / "a.mp4", greys(40)), 2)
    video = VideoFile(path)
    assert number_of(next(video.read(video.times[35:36]))) == 35, "the damage in front was not decoded"


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mp4", "hevc.mp4", "vp8.webm", "vp9.webm"])
def test_a_broken_frame_refuses_the_clip_only_when_it_is_needed(tmp_path: Path, name: str) -> None:
    codec, options = FORMATS[name]
    needs(codec)
    if codec == "libx265":
        options = {"x265-params": "log-level=none:keyint=8:min-keyint=8:open-gop=0"}
    path = damage(write_video(tmp_path / name, greys(32), codec, options=options), 19)
    video = VideoFile(path)
    assert numbers(list(video.read(video.times[:16]))) == list(range(16))
    assert numbers(list(video.read(video.times[30:]))) == [30, 31]
    with pytest.raises(ClipFileError, match=rf"{name} is damaged near (1\.[6-9]|2\.[0-3])\d seconds"):
        list(video.read(video.times[16:24]))


@pytest.mark.parametrize("name", ["mpeg4.avi", "mpeg2.mpeg"])
def test_a_broken_file_without_noted_times_is_refused(tmp_path: Path, name: str) -> None:
    path = damage(write_video(tmp_path / name, greys(32), FORMATS[name][0]), 19)
    assert "damaged" in refusal(path) or "cannot be read as a video" in refusal(path)


def test_a_video_cut_short_is_refused_or_gives_what_it_has(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", greys(30)).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as a video" in refusal(cut)
    whole = write_video(tmp_path / "a.mkv", greys(30)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    video = VideoFile(cut)
    kept = list(video.read(video.times[:8]))
    assert 8 < len(video.times) < 30 and numbers(kept) == list(range(8))


def scrolling(count: int) -> list[numpy.ndarray]:
    """Coloured noise that moves sideways, so that every frame has something to lose."""
    blocks = numpy.random.default_rng(0).integers(0, 255, (12, 16 + count, 3), numpy.uint8)
    picture = blocks.repeat(8, 0).repeat(8, 1)
    return [numpy.ascontiguousarray(picture[:, 3 * number : 3 * number + 128]) for number in range(count)]


@pytest.mark.parametrize("eighths", range(1, 8))
def test_no_frame_is_given_that_leans_on_a_broken_one(tmp_path: Path, eighths: int) -> None:
    needs("libx264")
    options = {"x264-params": "bframes=3:b-adapt=0:scenecut=0:keyint=100"}
    path = write_video(tmp_path / "a.mp4", scrolling(30), "libx264", options=options)
    whole = read_all(path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    # The sixth is stored in front of frames that are shown before it and lean on it.
    start, size = packets[5]
    content = bytearray(path.read_bytes())
    kept = size * eighths // 8
    content[start + kept : start + size] = bytes(size - kept)
    path.write_bytes(content)
    video, given = VideoFile(path), []
    with pytest.raises(ClipFileError, match="is damaged near 0"):
        given.extend(video.read(video.times))
    for place, time in enumerate(video.times[:12]):
        try:
            (frame,) = video.read([time])
        except ClipFileError:
            continue
        assert torch.equal(frame, whole[place])


def marked(path: Path) -> bool:
    """Whether a strict decoder goes through and marks a frame as damaged."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        try:
            return any(frame.is_corrupt for frame in container.decode(stream))
        except av.FFmpegError:
            return False


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_a_frame_that_the_decoder_marks_as_damaged_is_refused(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"a.{ending}", scrolling(30), key_every=10, bits=100_000)
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        start, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][13]
    for place in range(start + 6, start + size):
        path.write_bytes(whole[:place] + b"\xff\xff" + whole[place + 2 :])
        if marked(path):
            break
    else:
        pytest.skip("this decoder refuses or overlooks every such damage")
    assert "is damaged near 1.30 seconds (a frame is marked as damaged)" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 5000,
        b"hello",
        b"<!DOCTYPE html><html></html>",
        bytes(range(256)) * 40,
        b"#EXTM3U\n#EXTINF:1,\na.ts\n",
    ],
    ids=["empty", "zeros", "text", "web page", "garbage", "playlist"],
)
@pytest.mark.parametrize("ending", ["mp4", "avi", "gif"])
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"my clip.{ending}"
    path.write_bytes(content)
    assert "cannot be read as a video" in refusal(path)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "other.mp4", greys(20))
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 20, "FFmpeg itself follows the list"
    assert "cannot be read as a video" in refusal(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "gone.mp4")


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.avi", "pcm_s16le")])
def test_sound_without_picture_is_refused(tmp_path: Path, name: str, codec: str) -> None:
    needs(codec)
    assert refusal(write_sound(tmp_path / name, codec)) == "holds sound but no picture"


def test_the_cover_of_a_record_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(1), "rgb24")))
        container.mux(cover.encode())
    assert refusal(path) == "holds no picture"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_frames_of_uneven_length_keep_their_times(tmp_path: Path, ending: str) -> None:
    shown = [0, 33, 66, 133, 166, 900, 933, 1000]
    codec = "libvpx-vp9" if ending == "webm" else "mpeg4"
    needs(codec)
    path = write_video(tmp_path / f"phone.{ending}", greys(8), codec, milliseconds=shown)
    video = VideoFile(path)
    assert video.times == pytest.approx([time / 1000 for time in shown], abs=1e-3)
    assert numbers(list(video.read(video.times))) == list(range(8))


def test_the_first_frame_is_at_time_zero_whatever_the_file_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", greys(5), milliseconds=[700, 800, 900, 1000, 1100])
    video = VideoFile(path)
    assert video.times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4]) and video.end == pytest.approx(0.5, abs=0.07)


def test_the_delays_of_a_gif_are_honoured(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.gif", 6, [30, 70, 120, 500, 20, 110])
    video = VideoFile(path)
    assert video.times == pytest.approx([0, 0.03, 0.1, 0.22, 0.72, 0.74]) and video.end == pytest.approx(0.85)
    assert numbers(list(video.read([video.times[1], video.times[4]]))) == [1, 4]


def patched(count: int) -> list[numpy.ndarray]:
    """Each frame is the one before it and one square more."""
    frames = [grey(0)]
    for number in range(1, count):
        frames.append(frames[-1].copy())
        frames[-1][10:20, 5 * number : 5 * number + 4] = 200
    return frames


def test_a_gif_frame_that_is_only_a_patch_is_whole(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(frame) for frame in patched(8))
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=others, duration=100, loop=0)
    video = VideoFile(path)
    for number, frame in enumerate(patched(8)):
        assert torch.equal(next(video.read(video.times[number : number + 1])), torch.from_numpy(frame))


def test_what_is_transparent_in_a_gif_is_white(tmp_path: Path) -> None:
    images = []
    for number in range(3):
        pixels = numpy.dstack([grey(number), numpy.full((48, 64), 255, numpy.uint8)])
        pixels[:20, :, 3] = 0
        images.append(Image.fromarray(pixels))
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, disposal=2)
    for number, frame in enumerate(read_all(path)):
        assert (frame[:20] == 255).all() and number_of(frame[20:]) == number


def test_what_is_transparent_in_a_video_is_white(tmp_path: Path) -> None:
    pixels = numpy.dstack([grey(4), numpy.full((48, 64), 255, numpy.uint8)])
    pixels[:20, :, 3] = 0
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format="bgra")))
        container.mux(stream.encode())
    (frame,) = read_all(path)
    assert (frame[:20] == 255).all() and number_of(frame[20:]) == 4


def test_the_shape_of_pixels_that_a_gif_tells_is_not_heeded(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.gif", 3, 100)
    content = bytearray(path.read_bytes())
    content[12] = 1
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(1, 4)
    assert {frame.shape for frame in read_all(path)} == {(48, 64, 3)}


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ((0, False), "rgbx"),
        ((90, False), "gxrb"),
        ((-90, False), "brxg"),
        ((180, False), "xbgr"),
        ((0, True), "grxb"),
        ((180, True), "bxrg"),
    ],
)
def test_a_picture_is_turned_as_the_file_says(
    tmp_path: Path, turn: tuple[int, bool], expected: str, ending: str
) -> None:
    path = write_video(tmp_path / f"a.{ending}", [corners()] * 3, turn=turn)
    (frame, *_) = read_all(path)
    assert corner_names(frame) == expected
    assert frame.shape == ((64, 48, 3) if turn[0] in (90, -90) else (48, 64, 3))


@pytest.mark.parametrize("name", ["10 bit.mp4", "10 bit.mkv"])
def test_ten_bits_become_eight(tmp_path: Path, name: str) -> None:
    codec, pixels = ("libx265", "yuv420p10le") if name.endswith("mp4") else ("ffv1", "yuv422p10le")
    needs(codec)
    path = write_video(tmp_path / name, greys(20), codec, pixels=pixels, options=FORMATS["hevc.mp4"][1])
    assert numbers(read_all(path)) == list(range(20))


@pytest.mark.parametrize("size", [(63, 47), (17, 16), (33, 64)])
def test_odd_sizes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "a.mkv", greys(5, size), "ffv1", pixels="yuv444p")
    frames = read_all(path)
    assert numbers(frames) == list(range(5)) and {frame.shape for frame in frames} == {(size[1], size[0], 3)}


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    path = tmp_path / "dv.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 72, 58, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(3, (72, 58)), "rgb24")))
        container.mux(stream.encode())
    (frame,) = read_all(path)
    assert frame.shape == (58, 77, 3)


@pytest.mark.parametrize(("colours", "height"), [(1, 48), (5, 48), (9, 48), (None, 48), (1, 720), (5, 720)])
def test_colours_come_back_as_they_were(tmp_path: Path, colours: int | None, height: int) -> None:
    picture = corners((64, height))
    path = write_video(tmp_path / "a.mkv", [picture], "ffv1", pixels="yuv444p", colours=colours)
    (frame,) = read_all(path)
    assert (frame.int() - torch.from_numpy(picture).int()).abs().max() <= 3


def test_a_large_picture_that_says_nothing_of_its_colours_is_taken_for_high_definition(tmp_path: Path) -> None:
    plain = corners((64, 720))
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv444p"
        frame = av.VideoFrame.from_ndarray(plain, "rgb24").reformat(format="yuv444p", dst_colorspace="ITU709")
        frame.colorspace = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (frame,) = read_all(path)
    assert (frame.int() - torch.from_numpy(plain).int()).abs().max() <= 3


def test_a_file_of_one_frame_has_one_time_and_an_end(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", greys(1), fps=10))
    assert video.times == (0.0,) and video.end == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["my clip.mp4", "고양이 猫 é.mp4", "data:b.mp4", "100%d.mp4", "#hash?.mp4"])
def test_a_name_with_spaces_signs_and_other_letters_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = write_video(tmp_path / "a.mp4", greys(3))
    try:
        path = source.rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(tmp_path)
    assert len(read_all(path)) == len(read_all(Path(name))) == 3


def test_only_the_frame_at_hand_is_kept(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "a.mp4", greys(30)))
    frames = video.read(video.times)
    assert number_of(next(frames)) == 0, "the first frame is there before the second is decoded"
    assert math.prod(next(frames).shape) == 64 * 48 * 3
    frames.close()
