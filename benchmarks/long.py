"""What length costs: a full-size SD1.5 UNet with random weights and a full adaptor.

    bash bin/run benchmarks/long.py [--size 32] [--frames 16 64 256] [--chunk 8]
    bash bin/run benchmarks/long.py --frames 16 --order 1 2 4 8 --steps 20      frame by frame, so many at a time

Each length is sampled without guidance in a process of its own, and so is the whole batch of the first length without
windows.  With ``--order`` the first length is sampled in that order instead of the windows' rows, with guidance, and
``--clips`` of it side by side.  Prints seconds, seconds a frame, and peak memory without the latents.
"""

import argparse
import json
import statistics
import time

import torch
from comfy.model_patcher import ModelPatcher

from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.benchmarks import peak_memory
from magicvideo.benchmarks.overhead import random_model
from magicvideo.benchmarks.own_process import measured_apart
from magicvideo.tests.support import small_host

# Noise, latents and what samplers hold of that shape, at fp32: none of it depends on how the UNet is called.
LATENTS_HELD = 8


def model(options: argparse.Namespace) -> ModelPatcher:
    """The UNet with a full adaptor, in windows of ``chunk`` frames unless that is 0."""
    dtype = getattr(torch, options.dtype)
    base = random_model(dtype, full=not options.tiny)
    adaptor = new_adaptor(config_for(base), "random").to(dtype)
    order = {"order": "frame by frame", "chunk": options.at_once} if options.at_once else {"order": "together"}
    length = options.frames[0] if options.clips > 1 else 0
    bound = bind(base, small_host.trained(hosted(adaptor)), frames_per_clip=length, **order)
    return with_causal_windows(bound, options.chunk, options.offload) if options.chunk else bound


def seconds(made: ModelPatcher, frames: int, options: argparse.Namespace, steps: int) -> float:
    """Seconds of one sampling."""
    began = time.perf_counter()
    small_host.sample(made, frames, cfg=options.cfg, steps=steps, size=options.size, tokens=small_host.PROMPT_TOKENS)
    return time.perf_counter() - began


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of each round and the highest resident memory, MiB, of this process without the latents."""
    made, frames = model(options), options.frames[0] * options.clips
    seconds(made, min(frames, options.chunk) if options.chunk else frames, options, 1)  # warms up
    taken = [seconds(made, frames, options, options.steps) for _ in range(options.rounds)]
    latents = LATENTS_HELD * frames * 4 * options.size**2 * 4 / 2**20
    return {"seconds": taken, "peak": peak_memory.peak_mebibytes() - latents}


def in_own_process(options: argparse.Namespace, frames: int, chunk: int, at_once: int = 0) -> dict:
    """What ``measure`` finds for that length, in a process of its own."""
    words = ["--measure", "--frames", str(frames), "--chunk", str(chunk), "--at-once", str(at_once)]
    for name in ("size", "dtype", "rounds", "steps", "cfg", "clips"):
        words += [f"--{name}", str(getattr(options, name))]
    words += [flag for flag, given in (("--offload", options.offload), ("--tiny", options.tiny)) if given]
    return measured_apart(__file__, *words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--chunk", type=int, default=8, help="frames of a chunk")
    parser.add_argument("--size", type=int, default=32, help="latent height and width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--offload", action="store_true", help="the past waits in main memory")
    parser.add_argument("--tiny", action="store_true", help="the small UNet of the tests, to try the script")
    parser.add_argument("--order", type=int, nargs="+", help="frames at once, frame by frame, in place of windows")
    parser.add_argument("--clips", type=int, default=1, help="clips side by side, with --order")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--cfg", type=float, help="guidance (default: 1, none; 7 with --order)")
    parser.add_argument("--at-once", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.cfg = options.cfg or (7.0 if options.order else 1.0)
    if options.measure:
        print(json.dumps(measure(options)))
        return
    shortest = options.frames[0]
    rows = {f"{shortest} frames, together": (shortest, 0, 0)}
    if options.order:
        rows |= {f"{shortest} frames, {number} at a time": (shortest, 0, number) for number in options.order}
    else:
        rows |= {f"{frames} frames, chunks of {options.chunk}": (frames, options.chunk, 0) for frames in options.frames}
    told = f"{options.rounds} rounds, {options.steps} steps, cfg {options.cfg:g}, {options.clips} clips"
    print(f"{options.size}x{options.size} latents, {options.dtype}, {told}")
    print("| | median s | s a frame | against together | peak MiB without latents |\n|---|---|---|---|---|")
    whole = None
    for name, (frames, chunk, at_once) in rows.items():
        found = in_own_process(options, frames, chunk, at_once)
        frames *= options.clips
        a_frame = statistics.median(found["seconds"]) / frames
        whole = whole or a_frame
        print(f"| {name} | {a_frame * frames:.2f} | {a_frame:.3f} | {a_frame / whole:.3f} | {found['peak']:.0f} |")


if __name__ == "__main__":
    main()
