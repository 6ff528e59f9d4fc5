"""How steady frames get without trained weights, and with: real clips, noised and denoised with any checkpoint.

    bash bin/run benchmarks/consistency.py --checkpoint MODEL --clips FILE@SECONDS ...

Each clip is encoded, noised as far as ``--denoise`` says, and sampled once for each row, so that its structure comes
from the clip.  A clip is a video file, with the second at which to begin behind an @, or a folder of clips; a text file
of the same name holds its prompt, else ``--prompt`` does.  Prints a table for each denoise, means over the clips, and
each measurement to stderr as it is made.  ``--strips`` names a folder for pictures: source, frames alone, and each
other row below.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor

from magicvideo.adaptor_unet.checkpoint import load
from magicvideo.adaptor_unet.frame_noise import NoiseKind
from magicvideo.adaptor_unet.host.adain_effect import Adain
from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.calibrate import calibrated_adaptor
from magicvideo.adaptor_unet.host.cross_frame_effect import CrossFrameAttention
from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.noise import FrameNoise
from magicvideo.adaptor_unet.training.data.clip_files import find_clips
from magicvideo.adaptor_unet.training.data.framing import Framing, framed
from magicvideo.adaptor_unet.training.data.video_file import VideoFile
from magicvideo.benchmarks.clip_measures import neighbour_similarity, sharpness, warp_error
from magicvideo.benchmarks.peak_memory import forget_peak, peak_mebibytes
from magicvideo.demo.model.narrow_unet import narrow_model

ALONE = "frames alone"
LABEL = 14  # pixels


@dataclass(frozen=True)
class Clip:
    """``frames`` f h w 3 in 0..1, their latents, and what they show."""

    name: str
    frames: np.ndarray
    latent: dict[str, Tensor]
    positive: list
    negative: list


@dataclass(frozen=True)
class Row:
    """``model`` makes of the checkpoint's model what samples; ``share`` of the noise is shared."""

    model: Callable[[ModelPatcher, Clip], ModelPatcher] = lambda model, clip: model
    share: float = 0.0
    kind: NoiseKind = "mixed"


def cross_frame(**settings: Any) -> Callable[[ModelPatcher, Clip], ModelPatcher]:  # noqa: ANN401 - the node's own
    """A model with Cross-Frame Attention of these settings."""
    return lambda model, clip: with_effect(model, CrossFrameAttention.of(model, **settings))


def frame_adain(**settings: Any) -> Callable[[ModelPatcher, Clip], ModelPatcher]:  # noqa: ANN401 - the node's own
    """A model with Frame AdaIN of these settings."""
    return lambda model, clip: with_effect(model, Adain.of(model, **settings))


def both(first: Callable, second: Callable) -> Callable[[ModelPatcher, Clip], ModelPatcher]:
    """A model with the one and then the other."""
    return lambda model, clip: second(first(model, clip), clip)


def calibrated(model: ModelPatcher, clip: Clip) -> ModelPatcher:
    """The model with an adaptor that is calibrated on the clip."""
    return bind(model, calibrated_adaptor(model, clip.latent, clip.positive))


FIRST_AND_PREVIOUS = cross_frame()
ROWS = {
    ALONE: Row(),
    "first": Row(cross_frame(look_back="first")),
    "first and previous": Row(FIRST_AND_PREVIOUS),
    "AdaIN features": Row(frame_adain(at="features")),
    "AdaIN latent": Row(frame_adain()),
    "first and previous, AdaIN features": Row(both(FIRST_AND_PREVIOUS, frame_adain(at="features"))),
    "first and previous, AdaIN latent": Row(both(FIRST_AND_PREVIOUS, frame_adain())),
    "shared noise": Row(share=0.5),
    "first and previous, shared noise": Row(FIRST_AND_PREVIOUS, 0.5),
    "calibrated": Row(calibrated),
    "first and previous, calibrated": Row(both(FIRST_AND_PREVIOUS, calibrated)),
}
VARIANTS = {
    "last 3": Row(cross_frame(look_back="last", last_frames=3)),
    "all before": Row(cross_frame(look_back="last", last_frames=4096)),
    "first and previous, all blocks": Row(cross_frame(where="all")),
    "first and previous, strength 0.5": Row(cross_frame(strength=0.5)),
    "AdaIN features, strength 0.5": Row(frame_adain(at="features", strength=0.5)),
    "AdaIN features, first half": Row(frame_adain(at="features", end_percent=0.5)),
    "AdaIN features, second half": Row(frame_adain(at="features", start_percent=0.5)),
    "AdaIN features, last quarter": Row(frame_adain(at="features", start_percent=0.75)),
    "shared noise 1, AdaIN features": Row(frame_adain(at="features"), 1.0),
    "AdaIN latent, strength 0.5": Row(frame_adain(strength=0.5)),
    "AdaIN latent, first half": Row(frame_adain(end_percent=0.5)),
    "AdaIN latent, second half": Row(frame_adain(start_percent=0.5)),
    "shared noise 0.9": Row(share=0.9),
    "shared noise 1": Row(share=1.0),
    "progressive noise 0.5": Row(share=0.5, kind="progressive"),
    "progressive noise 0.9": Row(share=0.9, kind="progressive"),
    "first and previous, AdaIN latent, shared noise 0.9": Row(both(FIRST_AND_PREVIOUS, frame_adain()), 0.9),
}


def with_adaptor(path: Path) -> dict[str, Row]:
    """The rows of a trained adaptor."""
    adaptor = hosted(load(path))

    def moved(model: ModelPatcher, clip: Clip) -> ModelPatcher:
        return bind(model, adaptor)

    return {"trained adaptor": Row(moved), "trained adaptor, first and previous": Row(both(moved, FIRST_AND_PREVIOUS))}


def read(path: Path, start: float, options: argparse.Namespace) -> np.ndarray:
    """f h w 3 in 0..1: the frames from ``start`` on, at ``--fps``, cut to a square in the middle."""
    file = VideoFile(path)
    later = [moment for moment in file.times if moment >= start - 1e-6]
    if options.fps:
        wanted = [later[0] + i / options.fps for i in range(options.frames)] if later else []
        later = [max(moment for moment in file.times if moment <= time + 1e-6) for time in wanted if time < file.end]
    if len(later) < options.frames:
        raise SystemExit(f"{path} has {len(later)} frames from {start:g} s on, fewer than {options.frames}.")
    times = later[: options.frames]
    return torch.stack(list(framed(file.read(times), (options.size, options.size), Framing()))).numpy()


def sources(options: argparse.Namespace) -> list[tuple[Path, float, str]]:
    """File, second to begin at, and prompt of each clip that the command names."""
    found = []
    for given in options.clips:
        name, _, start = given.partition("@")
        if Path(name).is_dir():
            clips = [clip for clip in find_clips(Path(name)) if clip.kind == "video"]
            found += [(clip.path, 0.0, clip.caption or options.prompt) for clip in clips]
        else:
            text = Path(name).with_suffix(".txt")
            prompt = text.read_text(encoding="utf-8").strip() if text.is_file() else options.prompt
            found.append((Path(name), float(start or 0), prompt))
    return found


def clips_of(options: argparse.Namespace, text: comfy.sd.CLIP, vae: comfy.sd.VAE) -> list[Clip]:
    """The clips that the command names, encoded."""

    def encoded(words: str) -> list:
        return text.encode_from_tokens_scheduled(text.tokenize(words))

    made = []
    for path, start, prompt in sources(options):
        frames = read(path, start, options)
        latent = {"samples": vae.encode(torch.from_numpy(frames))}
        made.append(Clip(f"{path.stem}_{start:g}", frames, latent, encoded(prompt), encoded(options.negative)))
    return made


def sampled(
    model: ModelPatcher, row: Row, clip: Clip, denoise: float, steps: int, options: argparse.Namespace
) -> Tensor:
    """f c h w, as the stock KSampler makes them from the row's noise; ``model`` is what the row has made of it."""
    noise = FrameNoise(options.seed, row.share, row.kind).generate_noise(clip.latent)
    text, latents = (clip.positive, clip.negative), clip.latent["samples"]
    return comfy.sample.sample(
        model, noise, steps, options.cfg, "euler", "normal", *text, latents,
        denoise=denoise, disable_pbar=True, seed=options.seed,
    )  # fmt: skip


def measured(frames: np.ndarray, clip: Clip) -> dict[str, float]:
    """The measures of sampled frames, f h w 3 in 0..1, by name."""
    return {
        "warp": warp_error(frames, clip.frames),
        "alike": neighbour_similarity(frames),
        "sharp": sharpness(frames),
    }


def strip(rows: dict[str, np.ndarray], shown: int) -> Image.Image:
    """One line a row with its name above: ``shown`` frames, evenly taken."""
    lines = []
    for name, frames in rows.items():
        chosen = frames[np.linspace(0, len(frames) - 1, shown).round().astype(int)]
        line = Image.fromarray((np.concatenate(chosen, axis=1).clip(0, 1) * 255).round().astype(np.uint8))
        lines.append((name, line))
    width, height = lines[0][1].size
    sheet = Image.new("RGB", (width, len(lines) * (height + LABEL)), "white")
    for number, (name, line) in enumerate(lines):
        top = number * (height + LABEL)
        ImageDraw.Draw(sheet).text((2, top + 1), name, fill="black")
        sheet.paste(line, (0, top + LABEL))
    return sheet


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Means over the clips in Markdown; the times of each clip against its plain batch."""
    lines = ["| | warp error | neighbours alike | sharpness | time | peak MiB |", "|---|---|---|---|---|---|"]
    for name, found in results.items():
        mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        if "seconds" in mean:
            against = [one["seconds"] / plain["seconds"] for one, plain in zip(found, results[ALONE], strict=True)]
            cost = f"{np.median(against):.2f} | {mean['peak']:.0f}"
        else:
            cost = "| "
        lines.append(f"| {name} | {mean['warp']:.2f} | {mean['alike']:.3f} | {mean['sharp']:.2f} | {cost} |")
    return "\n".join(lines)


@torch.inference_mode()
def run(options: argparse.Namespace) -> None:
    """Samples and measures all that the command asks for, and prints the tables."""
    model, text, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(options.checkpoint))
    if options.narrow:
        model = narrow_model(load_file(options.narrow))
    rows = ROWS | (VARIANTS if options.variants else {}) | (with_adaptor(options.adaptor) if options.adaptor else {})
    rows = {name: row for name, row in rows.items() if name == ALONE or not options.rows or name in options.rows}
    clips = clips_of(options, text, vae)
    size = f"{options.frames} frames, {options.size}x{options.size}"
    print(f"{len(clips)} clips of {size}, {options.steps} steps, cfg {options.cfg}, seed {options.seed}")
    for denoise in options.denoise:
        sampled(model, Row(), clips[0], denoise, 1, options)  # warms up
        results: dict[str, list[dict[str, float]]] = {"the source itself": [measured(c.frames, c) for c in clips]}
        for clip in clips:
            pictures = {"source": clip.frames}
            for name, row in rows.items():
                prepared = row.model(model, clip)
                forget_peak()
                began = time.perf_counter()
                latents = sampled(prepared, row, clip, denoise, options.steps, options).cpu()
                cost = {"seconds": time.perf_counter() - began, "peak": peak_mebibytes()}
                pictures[name] = vae.decode(latents).cpu().numpy()
                found = measured(pictures[name], clip) | cost
                results.setdefault(name, []).append(found)
                print(clip.name, denoise, name, {key: round(value, 3) for key, value in found.items()}, file=sys.stderr)
            if options.strips:
                options.strips.mkdir(parents=True, exist_ok=True)
                strip(pictures, options.shown).save(options.strips / f"{clip.name}_{round(100 * denoise)}.png")
        print(f"\ndenoise {denoise}\n\n{table(results)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="any SD1.5 checkpoint")
    parser.add_argument("--narrow", type=Path, help="narrow weights of the demo model, which cost a quarter")
    parser.add_argument("--clips", nargs="+", required=True, metavar="FILE[@SECONDS]", help="video files, or a folder")
    parser.add_argument("--adaptor", type=Path, help="a trained adaptor, for two more rows")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--fps", type=float, default=8.0, help="frames a second of a clip; 0: all it has")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--denoise", type=float, nargs="+", default=[0.5, 0.65, 0.8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--negative", default="")
    parser.add_argument("--rows", nargs="+", help="these alone, besides frames alone")
    parser.add_argument("--variants", action="store_true", help="other settings too, from which the defaults follow")
    parser.add_argument("--strips", type=Path, help="a folder for pictures of the frames")
    parser.add_argument("--shown", type=int, default=8, help="frames in such a picture")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
