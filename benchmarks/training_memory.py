"""How much memory a training step takes: counted on tensors without values, for a full-size SD1.5 UNet.

    bash bin/run benchmarks/training_memory.py [--sizes 256 512] [--frames 16]

Nothing is computed, so that it needs no graphics card: PyTorch's fake tensors have shapes alone, and its memory tracker
adds up what is alive at the same time.  What a card's allocator rounds up and its libraries keep for themselves is not
counted.  Attention is the fused one, which keeps no table of scores.
"""

import argparse

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.adaptor_unet.training.objective import NoisyFrames, Objective
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.trainables import MovingAverage, Trainables
from magicvideo.benchmarks.overhead import FULL
from magicvideo.tests.support import small_host

WAYS = {
    "bf16": ("bfloat16", {}),
    "bf16, rank 64": ("bfloat16", {"rank": 64}),
    "bf16, frames together": ("bfloat16", {"frame_noise_levels": "one_a_clip"}),
    "bf16, without checkpointing": ("bfloat16", {"checkpointing": False}),
    "fp32": ("float32", {}),
}


def peak_gigabytes(way: str, frames: int, pixels: int) -> float:
    """The highest sum of all tensors while steps are taken: weights, averages, optimiser, gradients, activations."""
    name, changed = WAYS[way]
    dtype, size = getattr(torch, name), pixels // 8
    rank = changed.get("rank", 0)
    settings = TrainingSettings(**{name: value for name, value in changed.items() if name != "rank"})
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = small_host.build_model()
        denoiser = TrainingUnet(model, torch.device("cpu"), dtype, settings.checkpointing)
        adaptor = new_adaptor(config_for(model, frames=frames, rank=rank), "random")
        del model  # the trainer's own copy is what counts
        trainables = Trainables(adaptor, denoiser.unet, settings)
        averages, optimiser = MovingAverage(trainables.parameters, settings.ema), trainables.optimiser(1e-4)
        objective = Objective(denoiser, settings)
        latents = torch.zeros(1, frames, 4, size, size)
        clips = NoisyFrames(latents, latents, torch.full((1, frames), 500))
        finished = clips if settings.frame_noise_levels == "finished_frames" else None
        tracker = MemTracker()
        tracker.track_external(denoiser.unet, adaptor, optimiser, *averages.values.values())
        with tracker:
            for _ in range(2):  # the first makes the optimiser's moments
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                    loss = objective.loss(clips, torch.zeros(1, 77, 768), (8.0,), adaptor, finished).sum()
                loss.backward()
                optimiser.step()
        peak = tracker.get_tracker_snapshot("peak")
    return sum(values["Total"] for values in peak.values()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="pixels to a side")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    small_host.SMALL.update(FULL)
    print(f"GB at the peak of a step, {options.frames} frames, one clip at once")
    print("| |" + "".join(f" {size}x{size} |" for size in options.sizes) + "\n|---|" + "---|" * len(options.sizes))
    for way in options.ways:
        peaks = [peak_gigabytes(way, options.frames, size) for size in options.sizes]
        print(f"| {way} |" + "".join(f" {peak:.1f} |" for peak in peaks), flush=True)


if __name__ == "__main__":
    main()
