"""How much of a card's memory a training takes: a full-size SD1.5 UNet, by size of the clips, precision and settings.

    bash bin/run benchmarks/training_memory.py                    a few minutes, on whatever there is
    bash bin/run benchmarks/training_memory.py --clips 512x16 --precision bf16

On a card it is what torch has allocated at the most. Without one it is counted, by tensors that have shapes and no
numbers (counted_card.py). Either way it is neither what CUDA itself takes, some 0.5 GiB, nor what torch cannot use of
what it holds, nor, where it is counted, what libraries take while an operation runs.

A clip is SIZExFRAMES. The first table tells the parts of a step and the peaks of all phases, the second what the
settings save of a step, for the first and the last clip and the first precision.
"""

import argparse
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from einops import repeat
from torch import Tensor, nn

from magicvideo.adaptor_unet.adaptor import VideoAdaptor
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.host.base_model import config_for
from magicvideo.adaptor_unet.host.frame_cache import FrameCache
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.training.data.data_settings import LATENT_PIXELS
from magicvideo.adaptor_unet.training.objective import NoisyFrames, Objective
from magicvideo.adaptor_unet.training.optimisers import expected
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.trainables import MovingAverage, Trainables
from magicvideo.benchmarks import counted_card
from magicvideo.tests.support import small_host

GIB = 2**30
CLIPS = ("256x16", "384x16", "512x8", "512x16")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
# What the second table tries, one after the other and in the end together.
SAVING = {
    "as it is by default": {},
    "base_precision fp8": {"base_precision": "fp8"},
    "frames_at_once 2": {"frames_at_once": 2},
    "offload_activations": {"offload_activations": True},
    "offload_averages": {"offload_averages": True},
    "optimiser adamw_8bit": {"optimiser": "adamw_8bit"},
    "rank 64": {"rank": 64},
    "frame_noise_levels clean_context": {"frame_noise_levels": "clean_context"},
    "the first three": {"base_precision": "fp8", "frames_at_once": 2, "offload_activations": True},
}
SAVING["the first four"] = SAVING["the first three"] | {"offload_averages": True}
SAVING["the first five"] = SAVING["the first four"] | {"optimiser": "adamw_8bit"}
TEXT_TOKENS = 77
# Of SD1.5.
AUTOENCODER = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
AUTOENCODER |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}


@dataclass(frozen=True)
class Case:
    """A training of clips of ``frames`` frames of ``size`` by ``size`` pixels; ``settings`` are those of a run."""

    size: int
    frames: int
    settings: dict[str, object] = field(default_factory=dict, hash=False)
    tiny: bool = False

    @property
    def training(self) -> TrainingSettings:
        """The settings of training."""
        return TrainingSettings(**{name: value for name, value in self.settings.items() if name != "rank"})


class Card:
    """The most bytes that were on the card, counted or measured."""

    def __init__(self, held: counted_card.Held | None) -> None:
        self.held = held

    @contextmanager
    def peak(self, found: dict[str, int], name: str) -> Iterator[None]:
        """What was held at the most in the context, written into ``found``."""
        gc.collect()
        if self.held is None:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.held.most = self.held.now
        yield
        found[name] = torch.cuda.max_memory_allocated() if self.held is None else self.held.most


class Training:
    """What a run has on the card, put together as ``TrainingRun`` does, and its phases."""

    def __init__(self, case: Case, counted: bool) -> None:
        settings = self.settings = case.training
        self.case, self.dtype, self.counted = case, DTYPES[settings.precision], counted
        self.device = counted_card.CARD if counted else torch.device("cuda:0")
        model = image_model(case.tiny, counted)
        weights = torch.float32 if settings.base_tuning == "full" else self.dtype
        self.denoiser = TrainingUnet(
            model,
            self.device,
            weights,
            settings.checkpointing,
            settings.base_precision == "fp8",
            settings.offload_activations,
            settings.frames_at_once,
        )
        if counted:
            self.denoiser.options["optimized_attention_override"] = counted_card.card_attention
        adaptor = VideoAdaptor(config_for(model, frames=case.frames, rank=case.settings.get("rank", 0)))
        self.adaptor = moved(adaptor, self.device)
        self.trained = Trainables(self.adaptor, self.denoiser.unet, settings)
        self.objective = Objective(self.denoiser, settings)
        self.averages = MovingAverage(self.trained.parameters, settings.ema, settings.offload_averages)
        self.channels = model.model.model_config.unet_config["context_dim"]
        self.fill_optimiser()

    def fill_optimiser(self) -> None:
        """What it keeps of each parameter, as after a first step."""
        self.kept: list[Tensor] = []
        if self.counted:  # its step needs numbers
            for parameter in self.trained.parameters.values():
                shapes = expected(self.settings.optimiser, parameter.shape).values()
                self.kept += [torch.zeros(shape, dtype=dtype, device=self.device) for shape, dtype in shapes]
            return
        optimiser = self.trained.optimiser(self.trained.rate(1))
        for parameter in self.trained.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        self.kept = [x for state in optimiser.state.values() for x in state.values() if isinstance(x, Tensor)]

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of what lies on the card all the time, by name."""
        return {
            "base": self.on_card(self.denoiser.unet.parameters()),
            "adaptor": self.on_card(self.adaptor.parameters()),
            "its gradients": self.on_card(self.trained.parameters.values()),
            "optimiser": self.on_card(self.kept),
            "averages": self.on_card(self.averages.values.values()),
        }

    def on_card(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of those tensors that lie on the card."""
        return sum(x.nbytes for x in tensors if x.device == self.device)

    def autocast(self) -> AbstractContextManager:
        """Mixed precision, as a run has it."""
        half = self.dtype is not torch.float32
        if self.counted:
            return counted_card.autocast(self.dtype)
        return torch.autocast("cuda", self.dtype if half else None, enabled=half)

    def step(self) -> None:
        """One step of one clip, without the changes of weights, in which no activations are left."""
        finished = self.noisy() if self.settings.frame_noise_levels == "finished_frames" else None
        with self.autocast():
            loss = self.objective.loss(self.noisy(), self.text(), (8.0,), self.adaptor, finished).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.parameters.values(), self.settings.clip_norm)
        for parameter in self.trained.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def validation(self) -> None:
        """A look at one held-out clip, given finished frames."""
        with self.averages.in_place(), self.autocast():
            self.objective.errors(self.noisy(), self.text(), (8.0,), self.adaptor, self.noisy())

    @contextmanager
    def sampling(self) -> Iterator[Callable[[], None]]:
        """A sample clip whose frames but the last are finished; what is given makes a pass for the last."""
        cache, last = FrameCache(), self.case.frames - 1
        with torch.no_grad(), self.averages.in_place(), self.autocast():
            self.guided(tuple(range(last)), cache)
            cache.keeps = False
            yield partial(self.guided, (last,), cache)
        self.denoiser.close()

    def guided(self, places: tuple[int, ...], cache: FrameCache) -> None:
        """A pass with both sides of guidance, for frames at these places."""
        cache.begin_chunk()
        x = repeat(self.frames(len(places)), "1 f c h w -> (b f) c h w", b=2)
        sigma = torch.ones(len(x), device=self.device)
        layout = FrameLayout(2, places, (0,) * len(places))
        text = repeat(self.text(), "1 n d -> b n d", b=2)
        self.denoiser.predict(x, sigma, text, (8.0, 8.0), self.adaptor, layout, cache.of_call((0, 1)))

    def frames(self, count: int) -> Tensor:
        """1 f c h w"""
        side = self.case.size // LATENT_PIXELS
        return torch.randn(1, count, 4, side, side, device=self.device)

    def noisy(self) -> NoisyFrames:
        """One clip with its noise."""
        clip = self.frames(self.case.frames)
        return NoisyFrames(
            clip, torch.randn_like(clip), torch.ones(clip.shape[:2], dtype=torch.long, device=self.device)
        )

    def text(self) -> Tensor:
        """1 n d: one caption."""
        return torch.randn(1, TEXT_TOKENS, self.channels, device=self.device)


def image_model(tiny: bool, counted: bool) -> ModelPatcher:
    """A model with random weights; if it is only counted, with none."""
    if not tiny:
        small_host.SMALL.update(small_host.FULL)
    return small_host.build_model() if not counted else model_without_numbers()


def model_without_numbers() -> ModelPatcher:
    """A model whose weights have shapes alone, in the main memory of a card that is not there."""
    made = comfy.supported_models.SD15(dict(small_host.SMALL))
    made.unet_config = small_host.SMALL | {"dtype": torch.float32}
    made.manual_cast_dtype = None
    model = made.get_model({}, device="meta")
    host = torch.device("cpu")
    for part in (model.diffusion_model, model.model_sampling):
        moved(part, host)
    return ModelPatcher(model, host, host)


def moved(network: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """The network with tensors there in place of its own, all zero: the numbers take no memory."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, x in tensors.items():
                if x is not None:
                    there = torch.zeros(x.shape, dtype=dtype or x.dtype, device=device)
                    tensors[name] = nn.Parameter(there, x.requires_grad) if isinstance(x, nn.Parameter) else there
    return network


def autoencoder(device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """The full-size autoencoder of SD1.5, on the card."""
    return moved(AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4), device, dtype).eval().requires_grad_(False)


def peaks(case: Case, counted: bool, every: bool) -> dict[str, int]:
    """Bytes of the parts of a step, and the most in a step; and if ``every``, the most in all other phases."""
    found: dict[str, int] = {}
    dtype = DTYPES[case.training.precision]  # of the autoencoder too: the host takes bfloat16 where a card has it
    with counted_card.counted_card(dtype) if counted else nullcontext() as held:
        card, device = Card(held), counted_card.CARD if counted else torch.device("cuda:0")
        if every:
            with torch.no_grad(), card.peak(found, "encoding a frame, before"):
                picture = torch.rand(1, 3, case.size, case.size, device=device, dtype=dtype)
                autoencoder(device, dtype).encode(picture)
                del picture
        training = Training(case, counted)
        with card.peak(found, "a step"):
            training.step()
        parts = training.parts
        parts["activations and the rest"] = found["a step"] - sum(parts.values())
        if every:
            with card.peak(found, "validation"):
                training.validation()
            with training.sampling() as last_frame, card.peak(found, "a sample clip"):
                last_frame()
            with torch.no_grad(), training.averages.in_place(), card.peak(found, "decoding its frames, one by one"):
                autoencoder(device, dtype).decode(training.frames(1)[0].to(dtype))
    return parts | found


def told(columns: dict[str, dict[str, int]]) -> str:
    """Markdown: a column of GiB for each case, a row for each thing."""
    rows = [f"| GiB | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    for name in next(iter(columns.values())):
        cells = (f"{column[name] / GIB:.2f}" for column in columns.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", default=CLIPS, metavar="SIZExFRAMES")
    parser.add_argument("--precision", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument(
        "--settings", nargs="*", default=list(SAVING), choices=list(SAVING), help="rows of the second table"
    )
    parser.add_argument("--count", action="store_true", help="count, also where there is a card")
    parser.add_argument("--tiny", action="store_true", help="a small UNet, to try this file")
    options = parser.parse_args()
    counted = options.count or not torch.cuda.is_available()
    print("no card, counted" if counted else torch.cuda.get_device_name())
    cases = [Case(*map(int, clip.split("x")), tiny=options.tiny) for clip in options.clips]
    for precision in options.precision:
        named = [(f"{case.size}x{case.size}, {case.frames} frames", case) for case in cases]
        whole = {
            name: peaks(replace(case, settings={"precision": precision}), counted, every=True) for name, case in named
        }
        print(f"\n{precision}\n\n{told(whole)}", flush=True)
    print()
    ends = dict.fromkeys((cases[0], cases[-1])) if options.settings else ()
    saved: dict[str, dict[str, int]] = {}
    for case in ends:
        column = saved.setdefault(f"{case.size}x{case.size}, {case.frames} frames, {options.precision[0]}", {})
        for name in options.settings:
            how = SAVING[name] | {"precision": options.precision[0]}
            column[name] = peaks(replace(case, settings=how), counted, every=False)["a step"]
    if saved:
        print(told(saved))


if __name__ == "__main__":
    main()
