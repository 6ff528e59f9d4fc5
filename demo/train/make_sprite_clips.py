"""Makes captioned clips of moving sprites: video files for any trainer, or latents for our own.

    bash bin/run demo/train/make_sprite_clips.py --folder .demo/clips --count 200
    bash bin/run demo/train/make_sprite_clips.py --latents .demo/training/clips.safetensors --count 3000

A folder gets ``NUMBER.mkv``, lossless, at 8, 12, 16 or 32 frames a second, and its caption in ``NUMBER.txt``. The
latents file holds ``latents`` (n f c h w, fp16, what the image network works on) and ``fps`` (n); its metadata holds
the captions, a JSON list. Sprites move at 24 pixels a second, so a lower frame rate makes longer steps. The same seed
makes the same clips.

Axes: n clips, f frames, c channels, h height, w width.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from magicvideo.adaptor_unet.whole_file import save_tensors
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, load_autoencoder
from magicvideo.demo.world.captions import caption
from magicvideo.demo.world.sprite_painter import Painter, load_sprites
from magicvideo.demo.world.sprite_scene import FRAME_RATES, FRAMES, Scene, draw_scene

Clip = tuple[Scene, str, np.ndarray]


def sprite_clips(
    painter: Painter, count: int, seed: int, frames: int = FRAMES, rates: Sequence[float] = FRAME_RATES
) -> Iterator[Clip]:
    """Scene, caption and frames, ``f h w c`` in 0..255, of so many clips that are drawn at random.

    Longer clips than FRAMES begin like others and end at the edge.
    """
    generator = random.Random(seed)
    for _ in range(count):
        scene = draw_scene(generator, painter.couples, min(frames, FRAMES), rates)
        yield scene, caption(scene, generator), painter.clip(scene, frames)


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes frames, f h w c in 0..255, as a lossless video, so that colours at the sprite's edge stay as they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_folder(folder: Path, clips: Iterator[Clip]) -> int:
    """Writes each clip as a video and its caption beside it, and gives how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, (scene, text, frames) in enumerate(clips, start=1):
        write_video(folder / f"{count:05}.mkv", frames, scene.fps)
        (folder / f"{count:05}.txt").write_text(f"{text}\n", encoding="utf-8")
    return count


@torch.no_grad()
def encoded_clip(network: SmallAutoencoder, frames: np.ndarray) -> Tensor:
    """f h w c in 0..255 -> f c h w: the latents of a clip, in fp16."""
    pictures = rearrange(torch.from_numpy(frames).float() / 255, "f h w c -> f c h w").contiguous()
    return network.encode(pictures).half()


def write_latents(path: Path, network: SmallAutoencoder, clips: Iterator[Clip]) -> int:
    """Writes the latents of all clips into one file, and gives how many there are."""
    latents, rates, captions = [], [], []
    for scene, text, frames in clips:
        latents.append(encoded_clip(network, frames))
        rates.append(scene.fps)
        captions.append(text)
    metadata = {"format": "pt", "captions": json.dumps(captions)}
    save_tensors(path, {"latents": torch.stack(latents), "fps": torch.tensor(rates)}, metadata)
    return len(captions)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes captioned clips of moving sprites.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", type=Path, help="write video files here")
    where.add_argument("--latents", type=Path, help="write one file of latents here")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument(
        "--fps",
        type=float,
        nargs="+",
        default=FRAME_RATES,
        help="drawn from these; what is named twice comes twice as often",
    )
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--autoencoder", type=Path, default=Path("demo/weights/autoencoder.safetensors"))
    options = parser.parse_args()
    painter = Painter(load_sprites(options.sprites))
    clips = sprite_clips(painter, options.count, options.seed, options.frames, options.fps)
    if options.folder:
        written = write_folder(options.folder, clips)
    else:
        written = write_latents(options.latents, load_autoencoder(options.autoencoder), clips)
    print(f"{written} clips in {options.folder or options.latents}")


if __name__ == "__main__":
    main()
