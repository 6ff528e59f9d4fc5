"""A toy image model with the parts that training needs, and clips for it; no host."""

from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.frame_adaptor import apply_change
from magicvideo.adaptor_unet.frame_layout import FrameLayout
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.adaptor_unet.sites import Site
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips, TrainingClips
from magicvideo.adaptor_unet.training.settings import TrainingSettings
from magicvideo.adaptor_unet.training.trainables import Trainables
from magicvideo.adaptor_unet.training.watchers import Watcher

CONVOLUTION, TRANSFORMER = "input_blocks.1.0.in_layers.2", "input_blocks.1.1.transformer_blocks.0"
CHANNELS, TEXT, FRAMES, TIMESTEPS = 8, 6, 4, 100


class Nested(nn.Module):
    """Modules under dotted names, as a UNet has them."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, module in modules.items():
            *path, leaf = name.split(".")
            parent = self
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent._modules[part]
            parent.add_module(leaf, module)


class ToyDenoiser:
    """Predicts noise (``"noise"``) or v (``"v"``) with one convolution, one linear attention and the text's mean."""

    def __init__(self, predicts: str = "noise", seed: int = 0) -> None:
        self.predicts = predicts
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.unet = Nested(
                {
                    CONVOLUTION: nn.Conv2d(4, CHANNELS, 3, padding=1),
                    f"{TRANSFORMER}.attn1.to_q": nn.Linear(CHANNELS, CHANNELS),
                    f"{TRANSFORMER}.attn2.to_k": nn.Linear(TEXT, CHANNELS),
                    "out.2": nn.Conv2d(CHANNELS, 4, 3, padding=1),
                }
            )
        alpha_bar = torch.linspace(0.999, 0.005, TIMESTEPS)
        self.sigmas = ((1 - alpha_bar) / alpha_bar) ** 0.5
        self.calls: list[tuple[tuple[float, ...], bool]] = []

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return latents + noise * rearrange(sigma, "n -> n 1 1 1")

    def denoised(self, out: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = rearrange(sigma, "n -> n 1 1 1")
        if self.predicts == "noise":
            return x - sigma * out
        return x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        fps: tuple[float, ...],
        adaptor: VideoAdaptor | None,
        layout: FrameLayout | None = None,
    ) -> Tensor:
        self.calls.append((fps, adaptor is not None))
        frames = len(x) // len(fps)
        layout = layout or FrameLayout.whole(len(fps), frames)
        z = self.unet.get_submodule(CONVOLUTION)(x / (1 + rearrange(sigma, "n -> n 1 1 1") ** 2) ** 0.5)
        if adaptor is not None:
            change = adaptor.frame[CONVOLUTION].change(torch.tensor(layout.adaptor_rows(adaptor.config.frames)))
            z = apply_change(z, *(rearrange(x, "n c -> n c 1 1") for x in change))
        z = rearrange(z, "n c h w -> n (h w) c")
        words = self.unet.get_submodule(f"{TRANSFORMER}.attn2.to_k")(text.mean(1))
        out = self.unet.get_submodule(f"{TRANSFORMER}.attn1.to_q")(z) + repeat(words, "b c -> (b f) 1 c", f=frames)
        if adaptor is not None:
            out = out + adaptor.temporal[TRANSFORMER](z, layout)
            out = out + repeat(adaptor.fps(torch.tensor(fps).to(out)), "b c -> (b f) 1 c", f=frames)
        return self.unet.get_submodule("out.2")(rearrange(out.tanh(), "n (h w) c -> n c h w", h=x.shape[2]))


def toy_adaptor(frames: int = FRAMES, shared_noise: float = 0.2) -> VideoAdaptor:
    sites = (Site(CONVOLUTION, "convolution", CHANNELS), Site(TRANSFORMER, "transformer", CHANNELS))
    ends = {"time_channels": 8, "embedding_channels": CHANNELS}
    config = AdaptorConfig(sites, frames, heads=2, shared_noise=shared_noise, **ends)
    return new_adaptor(config, "random")


def toy_clips(count: int = 5, frames: int = FRAMES, size: int = 4, seed: int = 0) -> MemoryClips:
    """Each clip shows one random picture that moves to the right."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for place in range(count):
        picture = torch.randn(4, size, size, generator=generator)
        moved = torch.stack([picture.roll(frame, -1) for frame in range(frames)])
        clips.append(LatentClip(moved, 8.0 + place, torch.randn(3, TEXT, generator=generator), f"clip {place}"))
    return MemoryClips(tuple(clips))


def toy_data(count: int = 5, held: int = 2) -> TrainingClips:
    clips = toy_clips(count + held)
    empty = torch.zeros(3, TEXT)
    return TrainingClips(MemoryClips(clips.clips[held:]), clips.clips[:held], empty)


class Told(Watcher):
    """A watcher that remembers; asks to stop once the given step is done."""

    begun_at, closed = 0, 0

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.all, self.clips = stop_at, [], []

    def begun(self, done: int) -> "Told":
        """Itself, once it knows how many steps were done before."""
        self.begun_at = done
        return self

    def close(self) -> None:
        self.closed += 1

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        self.all.append((done, values))

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        self.clips.append((done, frames))

    def stop(self) -> bool:
        return self.stop_at is not None and any(done >= self.stop_at for done, _ in self.all)

    def series(self, name: str) -> list[float]:
        return [values[name] for _, values in self.all if name in values]


def toy_run(
    settings: TrainingSettings, folder: Path, watcher: Told | None = None, foretells: bool = False, **others: object
) -> object:
    """A training run of the toy; ``others`` go to TrainingRun.

    Unless it ``foretells`` how long it takes, the calls of the toy are those of steps and looks alone.
    """
    from magicvideo.adaptor_unet.training.loop import TrainingRun
    from magicvideo.adaptor_unet.training.processes import accelerator

    denoiser = others.pop("denoiser", None) or ToyDenoiser()
    trainables = Trainables(others.pop("adaptor", None) or toy_adaptor(), denoiser.unet, settings)
    place = others.pop("accelerator", None) or accelerator(cpu=True)
    how = {"export": lambda step, final: None, "clips": toy_data()} | others
    run = TrainingRun(
        denoiser=denoiser,
        trainables=trainables,
        settings=settings,
        folder=folder,
        accelerator=place,
        watcher=watcher or Told(),
        **how,
    )
    if not foretells:
        run._foretell = lambda: None
    return run
