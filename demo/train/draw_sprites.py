"""Draws the demo's subjects as pictures with transparency, from the vector art of Noto Emoji (Apache-2.0, Google).

    bash bin/run demo/train/draw_sprites.py --folder .demo/sprites

The art comes from the npm package @iconify-json/noto and is drawn by the Python package resvg-py; both are fetched with
the registries' own commands into the folder. Where npm is missing, ``--font NotoColorEmoji.ttf`` draws the same
subjects from the font (SIL OFL 1.1; Debian package fonts-noto-color-emoji). Needed for training only.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from PIL import Image, ImageDraw, ImageFont

from magicvideo.demo.world.subjects import SUBJECTS

ART = "@iconify-json/noto@1.2.9"
RENDERER = "resvg-py==0.5.0"
PIXELS = 128
# The one size that the font holds its pictures in.
FONT_SIZE = 109
# For the font: one character a subject.
CHARACTERS = dict(zip(SUBJECTS, "🚀🚗🐠🐢🐝🎈⚽🍎🐱🐼🚂🚢⭐🤖🦀❤", strict=True))


def draw_from_art(folder: Path) -> None:
    """One PNG a subject into ``folder``, which also keeps the art and the renderer."""
    icons = json.loads(fetched_art(folder / "art").read_text(encoding="utf-8"))
    resvg = fetched_renderer(folder / "renderer")
    for subject in SUBJECTS.values():
        icon = icons["icons"][subject.picture]
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )
        png = resvg.svg_to_bytes(svg_string=svg, width=PIXELS, skip_system_fonts=True)
        save(Image.open(io.BytesIO(bytes(png))), folder / f"{subject.name}.png")


def draw_from_font(font_file: Path, folder: Path) -> None:
    """One PNG a subject into ``folder``, from the font's own pictures."""
    font = ImageFont.truetype(font_file, FONT_SIZE)
    for name, character in CHARACTERS.items():
        left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
        picture = Image.new("RGBA", (right - left, bottom - top))
        ImageDraw.Draw(picture).text((-left, -top), character, font=font, embedded_color=True)
        save(picture, folder / f"{name}.png")


def save(picture: Image.Image, path: Path) -> None:
    """Saves a picture cut to what is drawn, in the middle of a square of that size."""
    picture = picture.convert("RGBA")
    drawn = picture.crop(picture.getchannel("A").getbbox())
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    square.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS).save(path)


def fetched_art(folder: Path) -> Path:
    """The file of the vector art, which is fetched into the folder once."""
    icons = folder / "package" / "icons.json"
    if not icons.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", ART], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("*.tgz"))) as package:
            package.extractall(folder, filter="data")
    return icons


def fetched_renderer(folder: Path) -> ModuleType:
    """The package that draws SVG, loaded from the folder into which it is fetched once."""
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), RENDERER]
        subprocess.run(command, check=True)
    spec = PathFinder.find_spec("resvg_py", [str(folder)])
    sys.modules[spec.name] = module_from_spec(spec)  # where its own imports look for it
    spec.loader.exec_module(sys.modules[spec.name])
    return sys.modules[spec.name]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the demo's subjects, one picture each.")
    parser.add_argument("--folder", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--font", type=Path, help="draw from this NotoColorEmoji.ttf instead of fetching the art")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.font:
        draw_from_font(options.font, options.folder)
    else:
        draw_from_art(options.folder)
    print(f"{len(SUBJECTS)} sprites in {options.folder}")


if __name__ == "__main__":
    main()
