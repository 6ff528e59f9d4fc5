"""What the pack's nodes cost: a full-size UNet with random weights, plain batch against each, in turn.

    bash bin/run benchmarks/overhead.py [--size 16] [--rounds 5] [--dtype float32] [--family SDXL]
    bash bin/run benchmarks/overhead.py --animatediff-evolved FOLDER     beside a clone of that node pack

Prints medians, their ratio to the plain batch of the same run, that of the arithmetic alone (operations of matrix
products, convolutions and attention), and peak memory, each measured in a process of its own.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from comfy.model_management import unload_all_models
from comfy.model_patcher import ModelPatcher
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from magicvideo.adaptor_unet.host.adain_effect import Adain
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.cross_frame_effect import CrossFrameAttention
from magicvideo.adaptor_unet.host.effect import Effect
from magicvideo.adaptor_unet.host.hosted import hosted, hosted_motion_module
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.adaptor_unet.motion_module import ModuleKind, MotionModule, MotionModuleConfig
from magicvideo.benchmarks import peak_memory
from magicvideo.benchmarks.animatediff_evolved import animatediff_evolved
from magicvideo.benchmarks.own_process import measured_apart
from magicvideo.tests.support import small_host

Row = Callable[[ModelPatcher, torch.dtype], ModelPatcher]


def adapted(**settings: object) -> Row:
    """The adaptor of these settings, as training might leave it."""

    def bound(base: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
        adaptor = new_adaptor(config_for(base, **settings), "random").to(dtype)
        return bind(base, small_host.trained(hosted(adaptor)))

    return bound


def effect(kind: type[Effect], **settings: object) -> Row:
    """A row with one effect of these settings."""
    return lambda base, dtype: with_effect(base, kind.of(base, **settings))


def motion_module(kind: ModuleKind, mid: bool) -> Row:
    """A public motion module of this kind, with random weights."""

    def bound(base: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
        unet = base.model.diffusion_model
        widths = tuple(multiple * unet.model_channels for multiple in unet.channel_mult)
        config = MotionModuleConfig(kind, widths, depth=unet.num_res_blocks[0], mid=mid)
        module = MotionModule(config).to(dtype).requires_grad_(False)
        made = hosted_motion_module(module)
        made.model.to(dtype)
        return with_effect(base, MotionModuleEffect.of(base, motion_module=made))

    return bound


# The families whose full size is known here; motion modules are of SD1.5 alone.
FULL = {"SD1.5": small_host.FULL, "SDXL": small_host.FULL_SDXL}
# Which torch's counter does not know by itself.
ATTENTION_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
PLAIN, EVOLVED = "plain batch", "AnimateDiff-Evolved, v2"
ROWS: dict[str, Row] = {
    PLAIN: lambda base, dtype: base,
    "S, B": adapted(parts=("frame", "spatial")),
    "S, B, T-Attn rank 64": adapted(rank=64),
    "S, B, T-Attn full": adapted(),
    "S, B, T-Attn rank 64, first block": adapted(rank=64, attention_at="first_block"),
    "S, B, T-Attn full, first block": adapted(attention_at="first_block"),
    "cross-frame attention, first": effect(CrossFrameAttention, look_back="first"),
    "cross-frame attention, first and previous": effect(CrossFrameAttention),
    "cross-frame attention, first and previous, all blocks": effect(CrossFrameAttention, where="all"),
    "AdaIN, features": effect(Adain, at="features"),
    "AdaIN, latent": effect(Adain, at="latent"),
    "motion module, v1": motion_module("AnimateDiff v1", mid=False),
    "motion module, v2": motion_module("AnimateDiff v2", mid=True),
}


def random_model(dtype: torch.dtype, full: bool = True, family: str = "SD1.5") -> ModelPatcher:
    """A model with random weights that computes in its own dtype, of full size or as the tests have it."""
    if full:
        small_host.SMALL.update(FULL[family])
    base = small_host.build_model(small_host.FAMILIES[family][0], dtype)
    base.model.manual_cast_dtype = None
    return base


def models(dtype: torch.dtype, family: str, rows: dict[str, Row]) -> dict[str, ModelPatcher]:
    """The rows' models: one UNet, and clones of it."""
    base = random_model(dtype, family=family)
    return {name: row(base, dtype) for name, row in rows.items()}


def usual_rows(family: str) -> list[str]:
    """All that differ: transformers of SD1.5 have one block, and public motion modules are for SD1.5."""
    of_another = "first block" if family == "SD1.5" else "motion module"
    return [name for name in ROWS if of_another not in name]


def seconds(model: ModelPatcher, frames: int, size: int) -> float:
    """One sampling step without guidance: one call of the UNet with all frames."""
    began = time.perf_counter()
    small_host.sample(model, frames, cfg=1.0, steps=1, size=size, tokens=small_host.PROMPT_TOKENS)
    return time.perf_counter() - began


def timed(rows: dict[str, ModelPatcher], options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each row, round after round, and its operations; the models are let go behind it."""
    taken: dict[str, list[float]] = {name: [] for name in rows}
    operations = {}
    for name, model in rows.items():  # which warms up
        with FlopCounterMode(display=False, custom_mapping={ATTENTION_CPU: sdpa_flop}) as counted:
            seconds(model, options.frames, options.size)
        operations[name] = counted.get_total_flops()
    for _ in range(options.rounds):
        for name, model in rows.items():
            taken[name].append(seconds(model, options.frames, options.size))
    unload_all_models()
    return taken, operations


def peak_mebibytes(name: str, options: argparse.Namespace) -> float:
    """Highest resident memory of a process that samples this row once."""
    words = ["--size", str(options.size), "--frames", str(options.frames), "--dtype", options.dtype]
    words += ["--family", options.family]
    if options.animatediff_evolved:
        words += ["--animatediff-evolved", str(options.animatediff_evolved)]
    return measured_apart(__file__, "--peak-of", name, *words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=16, help="latent height and width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--family", default="SD1.5", choices=list(FULL))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--animatediff-evolved", type=Path, help="folder of a clone of that pack, for one more row")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    chosen = {name: ROWS[name] for name in (PLAIN, *(options.rows or usual_rows(options.family)))}
    if options.animatediff_evolved:
        chosen[EVOLVED] = animatediff_evolved(options.animatediff_evolved)
    if options.peak_of:
        (model,) = models(dtype, options.family, {options.peak_of: chosen[options.peak_of]}).values()
        seconds(model, options.frames, options.size)
        print(json.dumps(peak_memory.peak_mebibytes()))  # getrusage would count what this process was started from
        return
    taken, operations = timed(models(dtype, options.family, chosen), options)
    print(f"{options.frames} frames, {options.size}x{options.size} latents, {options.dtype}, {options.rounds} rounds")
    print("| | median s | ratio | spread of ratio | arithmetic |\n|---|---|---|---|---|")
    plain = statistics.median(taken[PLAIN])
    for name, values in taken.items():
        ratios = sorted(v / p for v, p in zip(values, taken[PLAIN], strict=True))
        median = statistics.median(values)
        spread, arithmetic = f"{ratios[0]:.3f} to {ratios[-1]:.3f}", operations[name] / operations[PLAIN]
        print(f"| {name} | {median:.2f} | {median / plain:.3f} | {spread} | {arithmetic:.3f} |", flush=True)
    print("\n| | peak MiB | ratio |\n|---|---|---|")
    plain_peak = None
    for name in chosen:
        peak = peak_mebibytes(name, options)
        plain_peak = plain_peak or peak
        print(f"| {name} | {peak:.0f} | {peak / plain_peak:.3f} |", flush=True)


if __name__ == "__main__":
    main()
