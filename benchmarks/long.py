"""What length costs with causal windows: a full-size SD1.5 UNet with random weights and a full adaptor.

    bash bin/run benchmarks/long.py [--size 32] [--frames 16 64 256] [--chunk 8]

Each length is sampled for one step without guidance in a process of its own, and so is the whole batch of the first
length without windows.  Prints seconds, seconds a frame, and peak memory without the latents.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from comfy.model_patcher import ModelPatcher

from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hosted import hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.benchmarks.overhead import FULL
from magicvideo.benchmarks.own_process import measured_apart
from magicvideo.tests.support import small_host

# Noise, latents and what samplers hold of that shape, at fp32: none of it depends on how the UNet is called.
LATENTS_HELD = 8


def model(options: argparse.Namespace) -> ModelPatcher:
    """The UNet with a full adaptor, in windows of ``chunk`` frames unless that is 0."""
    if not options.tiny:
        small_host.SMALL.update(FULL)
    dtype = getattr(torch, options.dtype)
    base = small_host.build_model(dtype=dtype)
    base.model.manual_cast_dtype = None
    adaptor = new_adaptor(config_for(base), "random").to(dtype)
    bound = bind(base, small_host.trained(hosted(adaptor)))
    return with_causal_windows(bound, options.chunk, options.offload) if options.chunk else bound


def seconds(made: ModelPatcher, frames: int, size: int) -> float:
    """One sampling step without guidance."""
    began = time.perf_counter()
    small_host.sample(made, frames, cfg=1.0, steps=1, size=size)
    return time.perf_counter() - began


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of each round and the highest resident memory, MiB, of this process without the latents."""
    made, (frames,) = model(options), options.frames
    seconds(made, min(frames, max(options.chunk, 1)), options.size)  # warms up
    taken = [seconds(made, frames, options.size) for _ in range(options.rounds)]
    latents = LATENTS_HELD * frames * 4 * options.size**2 * 4 / 2**20
    return {"seconds": taken, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - latents}


def in_own_process(options: argparse.Namespace, frames: int, chunk: int) -> dict:
    words = ["--measure", "--frames", str(frames), "--chunk", str(chunk)]
    words += ["--size", str(options.size), "--dtype", options.dtype, "--rounds", str(options.rounds)]
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
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    shortest = options.frames[0]
    rows = {f"{shortest} frames, whole": (shortest, 0)}
    rows |= {f"{frames} frames, chunks of {options.chunk}": (frames, options.chunk) for frames in options.frames}
    print(f"{options.size}x{options.size} latents, {options.dtype}, {options.rounds} rounds, one step, no guidance")
    print("| | median s | s a frame | against the whole | peak MiB without latents |\n|---|---|---|---|---|")
    whole = None
    for name, (frames, chunk) in rows.items():
        found = in_own_process(options, frames, chunk)
        a_frame = statistics.median(found["seconds"]) / frames
        whole = whole or a_frame
        print(f"| {name} | {a_frame * frames:.2f} | {a_frame:.3f} | {a_frame / whole:.3f} | {found['peak']:.0f} |")


if __name__ == "__main__":
    main()
