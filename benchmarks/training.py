"""What a training step costs: a full-size SD1.5 UNet with random weights, the trainer's way against the naive way.

    bash bin/run benchmarks/training.py [--size 16] [--frames 16] [--rounds 3]

Naive: frames encoded anew at every step, all activations kept, gradients through the base's weights, fp32.  Ours:
cached latents, activations computed again, the base frozen; in fp32, and in bf16 where the processor has it.  Each way
runs in a process of its own, in turn, round after round; prints medians, their ratio to the naive way, and the peak
memory of the steps (Linux; loading, where two copies of the UNet lie in memory, is not counted).
"""

import argparse
import json
import statistics
import time

import comfy.sd
import torch

from magicvideo.adaptor_unet.frame_noise import clip_noise
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.adaptor_unet.training.objective import NoisyFrames, Objective
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.trainables import Trainables
from magicvideo.benchmarks.overhead import FULL
from magicvideo.benchmarks.own_process import measured_apart
from magicvideo.benchmarks.peak_memory import forget_peak, peak_mebibytes
from magicvideo.tests.support import small_host

WAYS = {
    "naive": {"cached": False, "checkpointing": False, "base_gradients": True, "dtype": "float32"},
    "ours, fp32": {"cached": True, "checkpointing": True, "base_gradients": False, "dtype": "float32"},
    "ours, bf16": {"cached": True, "checkpointing": True, "base_gradients": False, "dtype": "bfloat16"},
}


def random_autoencoder() -> comfy.sd.VAE:
    """The full-size autoencoder of SD1.5 with random weights: what it computes costs the same."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    settings = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    settings |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    made = AutoencoderKL(ddconfig=settings, embed_dim=4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.02)
    return made.eval().requires_grad_(False)


def measure(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of one step after a first one, and the peak memory of both in MiB."""
    how = WAYS[way]
    small_host.SMALL.update(FULL)
    dtype = getattr(torch, how["dtype"])
    model = small_host.build_model()
    settings = TrainingSettings()
    denoiser = TrainingUnet(model, torch.device("cpu"), dtype, how["checkpointing"])
    adaptor = new_adaptor(config_for(model, frames=options.frames), "random")
    del model  # the trainer's own copy is what counts in all ways
    trainables = Trainables(adaptor, denoiser.unet, settings)
    denoiser.unet.requires_grad_(how["base_gradients"])
    optimiser, objective = trainables.optimiser(1e-4), Objective(denoiser, settings)
    autoencoder = None if how["cached"] else random_autoencoder()
    pictures = torch.rand(options.frames, 3, 8 * options.size, 8 * options.size) * 2 - 1
    latents = torch.randn(1, options.frames, 4, options.size, options.size)
    forget_peak()
    spent = 0.0
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        if autoencoder is not None:
            with torch.no_grad():
                latents = torch.stack([autoencoder.encode(frame[None])[0] for frame in pictures])[None].clamp(-3, 3)
        noise = clip_noise(tuple(latents.shape[1:]), torch.Generator().manual_seed(0), 0.0)[None]
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            clips = NoisyFrames(latents, noise, torch.full(latents.shape[:2], 500))
            loss = objective.loss(clips, torch.randn(1, 77, 768), (8.0,), adaptor).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        denoiser.unet.zero_grad(set_to_none=True)
        spent = time.perf_counter() - began
    return {"seconds": spent, "mebibytes": peak_mebibytes()}


def in_its_own_process(way: str, options: argparse.Namespace) -> dict[str, float]:
    sizes = ["--size", str(options.size), "--frames", str(options.frames)]
    return measured_apart(__file__, "--way", way, *sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=16, help="latent height and width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, values in found.items():
            values.append(in_its_own_process(way, options))
    naive = {name: statistics.median(row[name] for row in found["naive"]) for name in ("seconds", "mebibytes")}
    print(f"{options.frames} frames, {options.size}x{options.size} latents, {options.rounds} rounds")
    print("| | median s a step | ratio | peak MiB | ratio |\n|---|---|---|---|---|")
    for way, rows in found.items():
        seconds, peak = (statistics.median(row[name] for row in rows) for name in ("seconds", "mebibytes"))
        slower, larger = seconds / naive["seconds"], peak / naive["mebibytes"]
        print(f"| {way} | {seconds:.1f} | {slower:.2f} | {peak:.0f} | {larger:.2f} |")


if __name__ == "__main__":
    main()
