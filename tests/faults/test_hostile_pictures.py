"""Pictures and videos that would start programs, take all memory or end the preparation of all other clips."""

import struct
import subprocess
import zlib
from pathlib import Path

import av
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from fake_encoders import FakeEncoders
from made_clips import greys, write_animation, write_picture, write_video
from magicvideo.adaptor_unet.training.data import video_file
from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError, find_clips
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.frame_source import open_clip
from magicvideo.adaptor_unet.training.data.latent_cache import FolderClips, build_cache
from magicvideo.adaptor_unet.training.data.mov_tables import too_many_samples
from magicvideo.adaptor_unet.training.data.picture_door import webp_head
from magicvideo.adaptor_unet.training.data.video_file import VideoFile

SETTINGS = DataSettings(frames=4, width=64, height=48, draws_per_clip=1)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def prepared(folder: Path) -> FolderClips:
    return build_cache(
        find_clips(folder), SETTINGS, folder.parent / "cache", "weights", FakeEncoders, lambda *told: None
    )


def png_of(width: int, height: int) -> bytes:
    """A tiny file that says it is of that size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * min((width + 1) * min(height, 8), 1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif_of(width: int, height: int) -> bytes:
    """Two frames of one pixel each on a canvas of that size."""
    size, no_colours = struct.pack("<HH", width, height), b"\x80\0\0\0\0\0\xff\xff\xff"
    frame = b"!\xf9\x04\0\x0a\0\0\0" + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a" + size + no_colours + frame * 2 + b";"


def webp_of(width: int, height: int, kind: bytes = b"VP8X", frames: int = 2) -> bytes:
    """A tiny file that says it is of that size."""
    head = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    told = {
        b"VP8X": struct.pack("<I", 0x02 if frames > 1 else 0) + head,
        b"VP8L": b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(5),
        b"VP8 ": b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF),
    }[kind]
    chunks = kind + struct.pack("<I", len(told)) + told
    if kind == b"VP8X":
        chunks += (b"ANMF" + struct.pack("<I", 24) + bytes(24)) * frames
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.tif", "a.bmp", "a.mp4"])
def test_a_file_that_is_eps_inside_starts_no_program(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(*given: object, **more: object) -> None:
        started.append(given)
        raise OSError("no program here")

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    for call in ("call", "check_call", "run", "Popen"):
        monkeypatch.setattr(subprocess, call, start)
    write_animation(tmp_path / "clips" / "sound.gif", 8, 100)
    (tmp_path / "clips" / name).write_bytes(EPS)
    clips = prepared(tmp_path / "clips")
    assert [path.name for path, _ in clips.skipped] == [name] and len(clips.clips) == 1 and not started


HOSTILE = {
    "thin.png": png_of(1, 100_000),
    "flat.png": png_of(100_000, 1),
    "large.png": png_of(12_000, 12_000),
    "bomb.png": png_of(2**31 - 1, 2**31 - 1),
    "canvas.gif": gif_of(16_000, 16_000),
    "widest.gif": gif_of(65_535, 65_535),
    "canvas.webp": webp_of(2**24, 255),
    "still.webp": webp_of(2**16, 2**16, frames=0),
    "lossless.webp": webp_of(16_383, 16_383, b"VP8L"),
    "lossy.webp": webp_of(16_383, 16_383, b"VP8 "),
    "another.png": webp_of(2**16, 2**16, frames=0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_of_a_huge_size_is_skipped_by_name_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "clips" / "sound.mp4", greys(12))
    (tmp_path / "clips" / name).write_bytes(HOSTILE[name])
    clips = prepared(tmp_path / "clips")
    assert [path.name for path, _ in clips.skipped] == [name] and len(clips.clips) == 1


@pytest.mark.parametrize("name", ["large.png", "canvas.gif"])
def test_the_size_is_looked_at_before_anything_is_decoded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    write_video(tmp_path / "sound.mp4", greys(12))
    clip = next(clip for clip in find_clips(tmp_path) if clip.path.name == name)
    with pytest.raises(ValueError, match=r"is 12000 x 12000, 144 million|more than 67 million pixels"):
        list(open_clip(clip, 8).read([0.0]))


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name].startswith(b"RIFF")])
def test_the_size_of_a_webp_is_looked_at_before_its_decoder_is_made(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder makes room for the whole canvas."""
    (tmp_path / name).write_bytes(HOSTILE[name])
    if name.endswith("webp"):
        monkeypatch.setattr(Image, "open", pytest.fail)
    (clip,) = find_clips(tmp_path)
    monkeypatch.setattr(Image, "open", pytest.fail)
    with pytest.raises(ClipFileError, match=f"{name} is .* million pixels where 67 are the most"):
        list(open_clip(clip, 8).read([0.0]))


def test_heads_of_webp_files_say_what_pillow_says(tmp_path: Path) -> None:
    write_animation(tmp_path / "moving.webp", 3, 100)
    picture = Image.fromarray(numpy.zeros((48, 70, 3), numpy.uint8))
    picture.save(tmp_path / "lossy.webp")
    picture.save(tmp_path / "lossless.webp", lossless=True)
    picture.convert("RGBA").save(tmp_path / "clear.webp", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    picture.save(tmp_path / "one.webp", save_all=True, append_images=[])
    for path in tmp_path.iterdir():
        head = webp_head(path)
        with Image.open(path) as opened:
            assert (head.width, head.height, head.moves) == (*opened.size, opened.is_animated), path.name


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_webp_that_is_cut_off_or_damaged_has_a_head_or_none(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.webp"
    path.write_bytes(webp_of(20, 20)[:at] + damage)
    head = webp_head(path)
    assert head is None or (head.width, head.height) > (0, 0)


def test_the_limit_follows_from_what_is_asked_for(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", size=(9000, 8000))
    (clip,) = find_clips(tmp_path)
    with pytest.raises(ValueError, match="72 million pixels"):
        list(open_clip(clip, 8).read([0.0]))
    assert next(open_clip(clip, 8, 80_000_000).read([0.0])).shape == (8000, 9000, 3)


def test_a_video_whose_frames_grow_past_the_limit_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", greys(4, (640, 480)))
    with pytest.raises(ValueError, match="million pixels"):
        VideoFile(path, 640 * 480 - 1)
    assert len(list(VideoFile(path, 640 * 480).read([0.0]))) == 1


def raw_clip(path: Path) -> Path:
    """Three frames of one size each, of which a table says just the size and how many there are."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("rawvideo", rate=8)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        for picture in greys(3, (16, 16)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


# Where behind a table's name it says how many.
COUNTS = {b"stsz": 8, b"stts": 8}


@pytest.mark.parametrize("table", COUNTS)
def test_a_video_whose_tables_say_that_it_has_millions_of_frames_is_named(tmp_path: Path, table: bytes) -> None:
    """FFmpeg would make room for all of them: six gigabytes by a file of three kilobytes."""
    path = raw_clip(tmp_path / "a.mov")
    assert len(VideoFile(path).times) == 3
    raw = bytearray(path.read_bytes())
    at = raw.index(table) + 4 + COUNTS[table]
    raw[at : at + 4] = struct.pack(">I", 300_000)
    path.write_bytes(raw)
    with pytest.raises(ClipFileError, match="a.mov is damaged: it says that it has 300000 samples"):
        VideoFile(path)


def box(kind: bytes, *held: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, held))) + kind + b"".join(held)


def test_tables_are_found_wherever_they_stand(tmp_path: Path) -> None:
    many = struct.pack(">I", 2**31)
    fragment = box(b"moof", box(b"mfhd", bytes(8)), box(b"traf", box(b"trun", bytes(4), many, bytes(4))))
    rows = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(b"ctts", bytes(8), many, many))))))
    long = struct.pack(">I4sQ", 1, b"free", 24) + bytes(8)
    for content in (fragment, rows, long + fragment, box(b"ftyp", b"isom") + rows, rows[:-4] + bytes(4)):
        (tmp_path / "a.mp4").write_bytes(content)
        assert too_many_samples(tmp_path / "a.mp4") >= 2**31
    (tmp_path / "a.mp4").write_bytes(b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(5000, 0, -1)))
    assert too_many_samples(tmp_path / "a.mp4") == 0
    last = struct.pack(">I", 0) + rows[4:]  # up to the end of the file
    (tmp_path / "a.mp4").write_bytes(last)
    assert too_many_samples(tmp_path / "a.mp4") >= 2**31


def packed(tables: bytes, length: int | None = None) -> bytes:
    """A file whose tables are packed, as old QuickTime wrote them; ``length`` is what it says of them."""
    said = struct.pack(">I", len(tables) if length is None else length)
    return box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", said, zlib.compress(tables))))


def test_tables_that_are_packed_are_looked_into(tmp_path: Path) -> None:
    many = box(b"moov", box(b"trak", box(b"stbl", box(b"stsz", bytes(4), struct.pack(">II", 1, 2**31)))))
    path = tmp_path / "a.mov"
    path.write_bytes(packed(many))
    assert too_many_samples(path) == 2**31
    with pytest.raises(ClipFileError, match="a.mov is damaged: it says that it has 2147483648 samples"):
        VideoFile(path)
    path.write_bytes(packed(packed(many)))
    assert too_many_samples(path) == 2**31
    path.write_bytes(packed(b"", 2**30))
    assert too_many_samples(path) == 2**30, "FFmpeg makes room for their length"
    path.write_bytes(packed(bytes(4000), 100)[:-20])
    assert too_many_samples(path) == 0


def test_a_sound_clip_whose_tables_are_packed_is_read(tmp_path: Path) -> None:
    path = raw_clip(tmp_path / "a.mov")
    raw = path.read_bytes()
    at = raw.index(b"moov") - 4
    tables = raw[at : at + struct.unpack(">I", raw[at : at + 4])[0]]
    assert at + len(tables) == len(raw), "what comes before stays at its place"
    path.write_bytes(raw[:at] + packed(tables))
    assert len(VideoFile(path).times) == 3


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80))
def test_tables_that_are_cut_off_or_damaged_end_in_no_error(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.mp4"
    sound = box(b"moov", box(b"trak", box(b"mdia", box(b"stbl", box(b"stsz", bytes(12)), box(b"stts", bytes(16))))))
    path.write_bytes(sound[:at] + damage)
    assert too_many_samples(path) >= 0


def test_pixels_that_are_said_to_be_very_wide_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = VideoFile(write_video(tmp_path / "a.mkv", greys(4)))
    monkeypatch.setattr(video_file, "pixel_aspect", lambda container, stream: 1e6)
    with pytest.raises(ClipFileError, match="a.mkv is 64000000 x 48, 3072 million pixels"):
        next(video.read([0.0]))


def test_a_picture_in_which_hardly_anything_would_be_seen_is_named(tmp_path: Path) -> None:
    Image.fromarray(numpy.zeros((2000, 20, 3), numpy.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is 20 x 2000; less than one part in 32 of it would be seen at 64 x 48"):
        prepared(tmp_path)
