"""What the pack's nodes cost on a graphics card: a full-size SD1.5 UNet with random weights, plain batch against each.

    bash bin/run benchmarks/card.py                       512 pixels, fp16, 16 frames, with guidance
    bash bin/run benchmarks/card.py --size 128            1024 pixels
    bash bin/run benchmarks/card.py --rows "S, B, T-Attn full"

A row: milliseconds a sampling step, the ratio to the plain batch, kernels that a step starts, copies between processor
and card that a step makes, and peak memory. Without a card, one call of the UNet is made with tensors that have shapes
and no numbers: then kernels are operations of torch (attention of the UNet one), and in place of times and peak there
are the bytes that these write.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch.profiler import ProfilerActivity, profile

from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.frame_cache import MADE_ONCE_KEY, MadeOnce
from magicvideo.benchmarks.overhead import PLAIN, ROWS, Row, adapted, random_model
from magicvideo.tests.support import small_host
from magicvideo.tests.support.fake_card import call, fake_card, fused

STEPS = 4  # of a timed sampling, behind one that is not


def in_windows(**settings: object) -> Row:
    """The full adaptor in causal windows."""
    return lambda base, dtype: with_causal_windows(adapted()(base, dtype), **settings)


CARD_ROWS: dict[str, Row] = {
    **ROWS,
    "Causal Windows 8": in_windows(chunk_frames=8),
    "Causal Windows 8, offload": in_windows(chunk_frames=8, offload=True),
}


@dataclass(frozen=True)
class Cost:
    """What one step costs: milliseconds, kernels started, copies made, peak bytes on the card.

    Without a card there are no times and no peak, but the bytes that are written.
    """

    kernels: float
    copies: float
    ms: float = 0.0
    peak: int = 0
    written: int = 0


def measured(model: ModelPatcher, frames: int, size: int, rounds: int) -> Cost:
    """On the card: the median over the rounds, and what the profiler counts in one sampling more."""
    # Loads the weights, and lets libraries choose.
    small_host.sample(model, frames, steps=1, size=size, tokens=small_host.PROMPT_TOKENS)
    torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        small_host.sample(model, frames, steps=STEPS, size=size, tokens=small_host.PROMPT_TOKENS)
        torch.cuda.synchronize()
        taken.append((time.perf_counter() - began) / STEPS * 1000)
    peak = torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        small_host.sample(model, frames, steps=STEPS, size=size, tokens=small_host.PROMPT_TOKENS)
    names = [event.name for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [name for name in names if name.startswith("Memcpy") and "DtoD" not in name]
    kernels = [name for name in names if not name.startswith(("Memcpy", "Memset"))]
    return Cost(len(kernels) / STEPS, len(copies) / STEPS, statistics.median(taken), peak)


def counted(model: ModelPatcher, frames: int, size: int) -> Cost:
    """Without a card: one call of the UNet with both sides of guidance, after one at which things are made once."""
    once = MadeOnce()
    options = {MADE_ONCE_KEY: once, "optimized_attention_override": fused}
    with fake_card(model, *model.get_additional_models()), torch.inference_mode():
        call(model, frames, size, **options)
        waits = call(model, frames, size, **options)
    return Cost(waits.kernels, waits.found.total(), written=waits.written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="latent height and width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rows", nargs="+", choices=list(CARD_ROWS), default=list(CARD_ROWS), metavar="ROW")
    parser.add_argument("--tiny", action="store_true", help="a small UNet, to try this file")
    options = parser.parse_args()
    card = torch.cuda.is_available()
    dtype = getattr(torch, options.dtype)
    base = random_model(dtype, full=not options.tiny)
    base.load_device = comfy.model_management.get_torch_device()
    costs = {}
    for name in [PLAIN, *(name for name in options.rows if name != PLAIN)]:
        model = CARD_ROWS[name](base, dtype)
        if card:
            costs[name] = measured(model, options.frames, options.size, options.rounds)
        elif "Windows" not in name:  # whose chunks are cut outside the UNet
            costs[name] = counted(model, options.frames, options.size)
    where = torch.cuda.get_device_name() if card else "no card, counted"
    print(f"{where}, {options.frames} frames, {options.size}x{options.size} latents, {options.dtype}")
    print(f"| | ms a step | ratio | kernels | copies | {'peak' if card else 'written'} GB |\n|---|---|---|---|---|---|")
    for name, cost in costs.items():
        ratio = cost.ms / costs[PLAIN].ms if card else 0
        time_spent = f"{cost.ms:.1f} | {ratio:.3f}" if card else "|"
        bytes_of = (cost.peak if card else cost.written) / 1e9
        print(f"| {name} | {time_spent} | {cost.kernels:.0f} | {cost.copies:.1f} | {bytes_of:.2f} |")


if __name__ == "__main__":
    main()
