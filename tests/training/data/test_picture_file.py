"""Pictures, folders of pictures and animated WebP."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from made_clips import corner_names, corners, grey, number_of, numbers, write_animation, write_picture
from magicvideo.adaptor_unet.training.data.clip_files import ClipFileError
from magicvideo.adaptor_unet.training.data.picture_file import AnimatedPicture, PictureSequence


def still(path: Path) -> torch.Tensor:
    return next(PictureSequence([path], 8).read([0.0]))


def test_pictures_of_a_folder_come_at_the_given_rate(tmp_path: Path) -> None:
    paths = [write_picture(tmp_path / f"{number}.png", number) for number in range(6)]
    pictures = PictureSequence(paths, 8)
    assert pictures.times == tuple(number / 8 for number in range(6)) and pictures.end == 6 / 8
    assert numbers(list(pictures.read([0.125, 0.125, 0.5]))) == [1, 1, 4]


def test_the_delays_of_a_webp_are_honoured(tmp_path: Path) -> None:
    picture = AnimatedPicture(write_animation(tmp_path / "a.webp", 5, [30, 75, 120, 501, 110]))
    assert picture.times == pytest.approx([0, 0.03, 0.105, 0.225, 0.726]) and picture.end == pytest.approx(0.836)
    frames = list(picture.read([picture.times[number] for number in (0, 2, 2, 4)]))
    assert numbers(frames) == [0, 2, 2, 4] and frames[0].shape == (48, 64, 3) and frames[0].dtype == torch.uint8


def test_a_webp_without_delays_runs_as_in_a_browser(tmp_path: Path) -> None:
    picture = AnimatedPicture(write_animation(tmp_path / "a.webp", 3, 0))
    assert picture.times == pytest.approx([0, 0.1, 0.2])


def test_a_photograph_is_turned_as_the_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(corners()).save(tmp_path / "a.jpg", exif=exif)
    frame = still(tmp_path / "a.jpg")
    assert frame.shape == (64, 48, 3) and corner_names(frame) == "brxg"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
@pytest.mark.parametrize("number", [5, 30])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str, number: int) -> None:
    image = Image.fromarray(grey(number)).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    expected = torch.from_numpy(numpy.array(image.convert("RGB")))
    assert torch.equal(still(path), expected)
    assert mode == "1" or number_of(expected) == number


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    values = numpy.arange(256, dtype=numpy.uint16).reshape(16, 16) * 257
    Image.fromarray(values).save(tmp_path / "a.png")
    assert still(tmp_path / "a.png")[..., 0].tolist() == (values // 256).tolist()


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = numpy.zeros((4, 4, 4), numpy.uint8)
    pixels[:2, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    frame = still(tmp_path / "a.png")
    assert (frame[:2] == 0).all() and (frame[2:] == 255).all()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"RIFF\0\0\0\0WEBPVP8 "])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my picture.png"
    path.write_bytes(content)
    with pytest.raises(ClipFileError, match=r"^my picture.png cannot be read as a picture"):
        still(path)
    with pytest.raises(ClipFileError, match=r"^my picture.png cannot be read as a picture"):
        AnimatedPicture(path)


def test_a_picture_cut_short_is_refused(tmp_path: Path) -> None:
    noise = numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), numpy.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ClipFileError, match=f"{name} cannot be read as a picture"):
            still(tmp_path / name)


def test_a_webp_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", 9, 100)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ClipFileError, match="a.webp cannot be read as a picture"):
        list(AnimatedPicture(path).read([0.8]))
