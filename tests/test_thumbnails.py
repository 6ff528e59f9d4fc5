"""Every workflow has a moving picture for the template browser.  No host is needed."""

from pathlib import Path

import pytest
from PIL import Image

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
MOST_EACH, MOST_TOGETHER = 150_000, 1_500_000  # bytes


def test_there_is_a_picture_for_each_workflow_and_no_other() -> None:
    pictures = {path.name for path in WORKFLOWS.iterdir() if path.is_file() and path.suffix != ".json"}
    assert pictures == {f"{name}.jpg" for name in NAMES}, "bash bin/run tools/make_thumbnails.py makes them"


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_moves_and_is_small(name: str) -> None:
    path = WORKFLOWS / f"{name}.jpg"
    assert path.stat().st_size <= MOST_EACH
    with Image.open(path) as picture:
        assert picture.format == "WEBP" and picture.n_frames > 1 and picture.size == (256, 256)
        first = picture.convert("RGB").tobytes()
        picture.seek(picture.n_frames - 1)
        assert picture.convert("RGB").tobytes() != first


def test_the_pictures_together_do_not_weigh_on_those_who_clone() -> None:
    assert sum(path.stat().st_size for path in WORKFLOWS.glob("*.jpg")) <= MOST_TOGETHER
