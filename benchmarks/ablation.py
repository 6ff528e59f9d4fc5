"""What each part of the method is worth: the same short training with and without it, on the demo's narrow network.

    bash bin/run benchmarks/ablation.py [--steps 200] [--seeds 3] [--rows "S, B only" ...]
    bash bin/run benchmarks/ablation.py --table        only prints what was measured
    bash bin/run benchmarks/ablation.py --table --picture docs/ablation.svg

demo/README.md says how the clips are made. Every row has the same clips, steps and seeds; the trained part is measured
on clips that were held out and on directions that are asked for, always from the same noise. Each result is a line in
``--results``; what stands there is not measured again, and a run that was cut off goes on.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import load_file

from magicvideo.adaptor_unet.adaptor import FrameNoiseLevels, VideoAdaptor
from magicvideo.adaptor_unet.host.hosted import adaptor_for
from magicvideo.adaptor_unet.host.motion_effect import Order
from magicvideo.adaptor_unet.training.data.latent_clip import TrainingClips
from magicvideo.adaptor_unet.training.loop import TrainingRun
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.watchers import Watcher
from magicvideo.benchmarks.ablation_parts import (
    masked_after,
    temporal_convolutions_at_work,
    two_way,
    with_attention_weights,
    with_temporal_convolutions,
)
from magicvideo.benchmarks.ablation_picture import save_picture
from magicvideo.benchmarks.results import measure_missing, read_results, spread
from magicvideo.benchmarks.sprite_judge import SpriteJudge
from magicvideo.benchmarks.trained_arm import averages_at_work, measured, train
from magicvideo.demo.measure.judge_motion import FRAME_RATES, Asked, asked_clips
from magicvideo.demo.model.make_checkpoint import BASE, VAE
from magicvideo.demo.model.narrow_unet import NARROW_HEADS, narrow_model
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, load_autoencoder
from magicvideo.demo.train import motion as train_motion
from magicvideo.demo.world.sprite_painter import couples, load_sprites
from magicvideo.trainer.motion_training import MotionTraining

ASKED = 16
# Half of the demo's, so that 15 rows with three seeds are done in an evening on one processor core.
FRAMES = 8
LATENT = (FRAMES, 4, 8, 8)


@dataclass(frozen=True)
class Row:
    """``adaptor``: fields of its settings; ``training``: of the trainer's; ``change``: what is built in afterwards."""

    name: str
    adaptor: dict[str, object] = field(default_factory=dict)
    init: str = "spatial"
    training: dict[str, object] = field(default_factory=dict)
    change: Callable[[VideoAdaptor], VideoAdaptor] = lambda adaptor: adaptor
    trained: bool = True


NOISE_LEVELS = "noise levels: "
WHOLE = "all of it: S, B, T-Attn, fps"
ROWS = (
    Row("no adaptor", trained=False),
    Row(WHOLE),
    Row("S, B only", adaptor={"parts": ("frame", "spatial", "fps")}),
    Row("T-Attn only", adaptor={"parts": ("temporal", "fps")}),
    Row(
        "convolution over time for S, B",
        adaptor={"parts": ("temporal", "fps")},
        change=with_temporal_convolutions,
    ),
    Row("two-way attention", change=lambda adaptor: with_attention_weights(adaptor, two_way)),
    Row("masked after the softmax", change=lambda adaptor: with_attention_weights(adaptor, masked_after)),
    Row("no fps embedding", adaptor={"parts": ("frame", "spatial", "temporal")}),
    Row("rotary encoding", adaptor={"rotary": True}),
    Row("rank 8", adaptor={"rank": 8}),
    Row("rank 64", adaptor={"rank": 64}),
    Row("T-Attn from random weights", init="random"),
    Row("plain noise loss", training={"weighting": "none"}),
    Row("min-SNR loss", training={"weighting": "min_snr", "weighting_cap": 5.0}),
    Row("base tuned along", training={"base_tuning": "full"}),
    # How noise levels of a clip's frames are drawn; the rows above have one a clip.
    *(Row(f"{NOISE_LEVELS}{levels}", training={"frame_noise_levels": levels}) for levels in get_args(FrameNoiseLevels)),
)
ORDERS: tuple[Order, ...] = ("together", "frame by frame")
# The last two only with an adaptor.
LOSSES = ("val_high", "val_low", "val_given_high", "val_given_low")


class StepTimes(Watcher):
    """A watcher that keeps the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        if "seconds" in values:
            self.seconds.append(values["seconds"])


@dataclass(frozen=True)
class Ablation:
    """What all rows share, and the measurement of a row."""

    base: dict[str, torch.Tensor]
    clips: TrainingClips
    autoencoder: SmallAutoencoder
    asked: list[Asked]
    steps: int
    folder: Path

    @property
    def _judge(self) -> SpriteJudge:
        return SpriteJudge(self.autoencoder, self.asked, self.clips.empty_text, LATENT)

    def measure(self, row: Row, seed: int) -> dict[str, object]:
        """Trains and measures one row with one seed."""
        times = StepTimes()
        training = self._training(row, seed, times)
        run = training.run
        with self._at_work(run):
            if row.trained:
                train(training)
            adaptor = run.trainables.adaptor if row.trained else None
            judged, losses = measured(run, self._judge, adaptor)
            frame_by_frame = None
            if "frame_noise_levels" in row.training:
                with averages_at_work(run):
                    frame_by_frame = self._judge.shares(run.denoiser, adaptor, "frame by frame")
        trained = sum(parameter.numel() for parameter in run.trainables.adaptor.parameters()) if row.trained else 0
        return {
            "row": row.name,
            "seed": seed,
            "steps": self.steps,
            **judged,
            "frame by frame": frame_by_frame,
            **{name: losses.get(name) for name in LOSSES},
            "parameters": trained,
            "seconds": statistics.median(times.seconds) if times.seconds else None,
        }

    def _training(self, row: Row, seed: int, times: StepTimes) -> MotionTraining:
        fixed = {"steps": self.steps, "base_tuning": "frozen", "base_still_share": 0.0, "validate_every": 0}
        fixed |= {"seed": seed, "save_every": self.steps, "warm_up": 20, "ema": 0.98}
        settings = TrainingSettings(**{**vars(train_motion.SETTINGS), **fixed, **row.training})
        model = narrow_model(self.base)
        adaptor = row.change(adaptor_for(model, row.init, seed, heads=NARROW_HEADS, **row.adaptor))
        folder = self.folder / f"{ROWS.index(row):02}_{seed}"
        parts = train_motion.narrow_parts(
            model, self.clips, settings, folder, lambda _: [times], row.trained, export=lambda *_: None
        )
        return MotionTraining(parts, adaptor)

    def _at_work(self, run: TrainingRun) -> AbstractContextManager[None]:
        return temporal_convolutions_at_work(run.denoiser.unet, run.trainables.adaptor, FRAMES)


def first_frames(path: Path) -> TrainingClips:
    """The clips of a file, and those held out, without their later frames."""
    clips = train_motion.training_clips([path])
    train, held_out = (
        tuple(replace(clip, latents=clip.latents[:FRAMES]) for clip in part)
        for part in (clips.train.clips, clips.held_out)
    )
    return replace(clips, train=train_motion.SpriteClips(train), held_out=held_out)


def table(results: list[dict[str, object]]) -> str:
    """Markdown: the mean over the seeds, and the spread from the least to the most."""
    lines = [
        "| | direction right | travel, pixels | high-noise loss | low-noise loss | parameters | step, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        found = [result for result in results if result["row"] == row.name]
        if found:
            cells = [
                spread([100 * result["right"] for result in found], "{:.0f} %"),
                spread([result["travel"] for result in found], "{:.1f}"),
                spread([result["val_high"] for result in found], "{:.5f}"),
                spread([result["val_low"] for result in found], "{:.4f}"),
                f"{found[0]['parameters']:,}",
                spread([result["seconds"] for result in found if result["seconds"]], "{:.2f}"),
            ]
            lines.append(f"| {row.name} ({len(found)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def noise_level_table(results: list[dict[str, object]]) -> str:
    """Markdown: the rows that are sampled in both orders."""
    lines = [
        "| noise levels | sampled | right | smooth | jumps | travel, pixels | high-noise loss, given finished frames |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        found = [result for result in results if result["row"] == row.name and result.get("frame by frame")]
        for order in ORDERS if found else ():
            judged = [result if order == "together" else result["frame by frame"] for result in found]
            cells = [spread([100 * one[name] for one in judged], "{:.0f} %") for name in ("right", "smooth", "jumps")]
            cells.append(spread([one["travel"] for one in judged], "{:.1f}"))
            cells.append(spread([result["val_given_high"] for result in found], "{:.5f}"))
            name = row.name.removeprefix(NOISE_LEVELS)
            lines.append(f"| {name} ({len(found)}) | {order} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains and measures with and without each part of the method.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    parser.add_argument("--asked", type=int, default=ASKED, help="clips that are sampled to judge directions")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--clips", type=Path, default=Path(".demo/training/clips.safetensors"))
    parser.add_argument("--sprites", type=Path, default=Path(".demo/sprites"))
    parser.add_argument("--results", type=Path, default=Path(".demo/ablation/results.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--picture", type=Path, help="an SVG file of what was measured")
    options = parser.parse_args()
    results = read_results(options.results)
    if not options.table:
        ablation = Ablation(
            base=load_file(options.base),
            clips=first_frames(options.clips),
            autoencoder=load_autoencoder(VAE),
            asked=asked_clips(couples(load_sprites(options.sprites)), options.asked, FRAME_RATES, first_seed=90_000),
            steps=options.steps,
            folder=options.results.parent,
        )
        rows = {row.name: row for row in ROWS if row.name in options.rows}

        def measure(row: str, seed: int) -> dict[str, object]:
            found = ablation.measure(rows[row], seed)
            print(json.dumps(found), flush=True)
            return found

        # All rows with one seed before the next one, so that a table can be read early.
        wanted = ({"row": row, "seed": seed} for seed in range(options.seeds) for row in rows)
        results = measure_missing(options.results, wanted, measure)
    print(table(results))
    print(noise_level_table(results))
    if options.picture:
        names = [row.name for row in ROWS if not row.name.startswith(NOISE_LEVELS)]
        save_picture(options.picture, names, results, compared=WHOLE)


if __name__ == "__main__":
    main()
