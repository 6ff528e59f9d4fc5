"""Whether what is trained on the demo's narrow network moves sprites as it is told: shares of clips that are asked for.

Axes: f frames, c h w of a latent or picture.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from magicvideo.adaptor_unet.host.motion_effect import Order
from magicvideo.adaptor_unet.host.sample_clips import SampleSettings, sample_latents
from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.temporal_network import Network
from magicvideo.demo.measure.judge_motion import Asked, Judged
from magicvideo.demo.measure.motion_rule import JUMP, SMOOTH
from magicvideo.demo.model.demo_models import CFG
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, as_bytes
from magicvideo.demo.train.encode_stills import word_numbers, word_table


def few_words(prompt: str) -> Tensor:
    """n d: the known words of a prompt, as the demo's network is trained to read them (few_tokens.py)."""
    return word_table()[word_numbers(prompt)]


@dataclass(frozen=True)
class SpriteJudge:
    """Samples the clips that are ``asked`` for, each of ``shape`` f c h w, always from the same noise.

    ``text`` gives what the network reads of a prompt, ``n d``.
    """

    autoencoder: SmallAutoencoder
    asked: list[Asked]
    empty_text: Tensor
    shape: tuple[int, int, int, int]
    steps: int = 12
    text: Callable[[str], Tensor] = few_words

    def shares(self, denoiser: TrainingUnet, network: Network | None, order: Order = "auto") -> dict[str, float]:
        """Shares of the clips that go the right way, that are smooth, that jump; how far they travel in the mean."""
        clips = [self.sampled(denoiser, network, asked, order) for asked in self.asked]
        return {
            "right": share(clip.right for clip in clips),
            "smooth": share(clip.worst_step <= SMOOTH for clip in clips),
            "jumps": share(clip.worst_step > JUMP for clip in clips),
            "travel": statistics.fmean(clip.along for clip in clips),
        }

    def sampled(self, denoiser: TrainingUnet, network: Network | None, asked: Asked, order: Order) -> Judged:
        """One of the clips, sampled and judged."""
        text = self.text(asked.prompt)
        how = SampleSettings(self.shape, asked.fps, self.steps, CFG, asked.seed, order)
        latents = sample_latents(denoiser, network, text, self.empty_text, how)
        pictures = self.autoencoder.decode(latents.float())
        return Judged(asked, rearrange(as_bytes(pictures), "f c h w -> f h w c").numpy())


def share(said: Iterable[bool]) -> float:
    """How many of them are true, 0 to 1."""
    return statistics.fmean(map(float, said))
