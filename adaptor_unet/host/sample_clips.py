"""Sample clips of a training: the weights as they are, sampled by the host's own way.

Axes: b the wanted text and the empty one, f frames of a clip, c h w of a latent; n tokens, d channels of a text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import comfy.k_diffusion.sampling
import comfy.samplers
import torch
from einops import rearrange, repeat
from torch import Tensor

from ..adaptor import VideoAdaptor
from ..fps_embedding import NOT_TOLD
from ..frame_layout import FrameLayout
from ..frame_noise import clip_noise
from ..temporal_network import Network
from .call_part import ModelOptions, SamplerArguments
from .causal_sampling import CausalSampling
from .finished_frames import Conditionings, finished_frames
from .motion_effect import Order
from .sampling_order import SamplingOrder
from .training_unet import TrainingUnet, effect_of


@dataclass(frozen=True)
class SampleSettings:
    """``shape`` of the clip ``f c h w``, its fps, and how to sample it; ``order`` as for Apply MagicVideo."""

    shape: tuple[int, int, int, int]
    fps: float
    steps: int
    cfg: float
    seed: int
    order: Order = "auto"


class TrainingGuider:
    """The weights as they are in training, as samplers of the host call a model: with guidance between two texts.

    ``texts`` is ``2 n d``, the wanted one and the empty one.  ``next_pass`` is called before each pass of the UNet.
    """

    def __init__(
        self,
        denoiser: TrainingUnet,
        network: Network | None,
        texts: Tensor,
        settings: SampleSettings,
        next_pass: Callable[[], None],
    ) -> None:
        self.inner_model, self.network, self.texts, self.settings = denoiser, network, texts, settings
        self.next_pass = next_pass
        untold = isinstance(network, VideoAdaptor) and network.config.fps_guidance
        self.rates = (settings.fps, NOT_TOLD if untold else settings.fps)
        self.conds = {side: [{"uuid": side}] for side in ("wanted", "empty")}

    def __call__(self, x: Tensor, sigma: Tensor, model_options: ModelOptions, seed: int | None = None) -> Tensor:
        """The clean latents behind guidance, f c h w -> f c h w; sigma is f, one noise level a frame."""
        finished = finished_frames(model_options["transformer_options"])
        conds = list(self.conds.values())
        wanted, empty = finished.show_then_denoise(self.both, self.inner_model, conds, x, sigma, model_options)
        return empty + self.settings.cfg * (wanted - empty)

    def both(
        self, denoiser: TrainingUnet, conds: Conditionings, x: Tensor, sigma: Tensor, model_options: ModelOptions
    ) -> list[Tensor]:
        """f c h w for the wanted text and for the empty one."""
        self.next_pass()
        options = model_options["transformer_options"]
        places = tuple(options["context_window"].index_list)
        layout, cache = FrameLayout(2, places, (0,) * len(places)), finished_frames(options).of_call((0, 1))
        twice, levels = repeat(x, "f c h w -> (b f) c h w", b=2), repeat(sigma, "f -> (b f)", b=2)
        out = denoiser.predict(twice, levels, self.texts, self.rates, self.network, layout, cache)
        return list(rearrange(denoiser.denoised(out, twice, levels), "(b f) c h w -> b f c h w", b=2))


def euler(
    guider: TrainingGuider,
    sigmas: Tensor,
    extra_args: SamplerArguments,
    callback: None,
    noise: Tensor,
    start: Tensor,
    *_: object,
) -> Tensor:
    """f c h w: Euler steps from full noise on; arguments as the host's samplers take them."""
    x = guider.inner_model.model_sampling.noise_scaling(sigmas[:1], noise, start, max_denoise=True)
    return comfy.k_diffusion.sampling.sample_euler(guider, x, sigmas, extra_args=extra_args, disable=True)


@torch.no_grad()
def sample_latents(
    denoiser: TrainingUnet,
    network: Network | None,
    text: Tensor,
    empty_text: Tensor,
    settings: SampleSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """A clip of the weights as they are in training, f c h w: Euler steps on the host's normal schedule.

    All frames together, or one after the other where an adaptor is trained for that, as in a graph; without a network
    they are stills.  Text and empty text are ``n d`` and are repeated to one length.  ``progress`` is told which of the
    passes is next, and how many there are.
    """
    device = denoiser.sigmas.device
    texts = denoiser.captions.stacked([text, empty_text]).to(device)
    acting = effect_of(network, denoiser.unet, (settings.fps,), settings.order) if network is not None else None
    shared_noise = acting.shared_noise if acting else 0.0
    noise = clip_noise(settings.shape, torch.Generator().manual_seed(settings.seed), shared_noise).to(device)
    sigmas = comfy.samplers.calculate_sigmas(denoiser.model_sampling, "normal", settings.steps).to(device)
    order = acting.sampling_order if acting else None
    sampling = CausalSampling(order or SamplingOrder(len(noise)), len(noise))
    chunks = len(noise) if order else 1
    passes, total = count(1), settings.steps * chunks + chunks - 1  # each chunk but the last is shown once, finished
    guider = TrainingGuider(denoiser, network, texts, settings, lambda: progress(next(passes), total))
    arguments: SamplerArguments = {"model_options": {"transformer_options": {}}}
    try:
        return sampling.sample(
            euler, guider, sigmas, arguments, None, noise, torch.zeros_like(noise), disable_pbar=True
        )
    finally:
        denoiser.close()
