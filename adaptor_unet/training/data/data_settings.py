"""How clips become training data: which frames, at which rate, of which size."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from ..setting_fields import (
    LEAST_RATE,
    MOST_CLIPS,
    MOST_FRAMES,
    MOST_RATE,
    MOST_SEED,
    check_settings,
    setting,
)

Crop = Literal["centre", "random"]
RATES = ("fps_min", "fps_max", "image_fps")
# The autoencoder of SD1.5 makes one latent of 8 by 8 pixels.
LATENT_PIXELS = 8
# Of frames that are trained; far beyond what any card has memory for.
MOST_SIDE = 4096
# What these say does not reach the latents, so changing them keeps the cache.
NOT_IN_LATENTS = ("stills", "caption_prefix")


@dataclass(frozen=True)
class DataSettings:
    """Settings of the data; raises ValueError when a value makes no sense.

    A sub-clip of 16 frames, as in the paper, shows four seconds at 4 frames a second, with steps still small enough to
    follow; above 30 hardly anything moves.  Sub-clips are drawn once, because their latents are cached.
    """

    frames: int = setting(
        16, "Frames of a training clip. Longer clips can still be made with the adaptor.", least=1, most=MOST_FRAMES
    )
    width: int = setting(512, "Width of the training frames.", least=8, most=MOST_SIDE, multiple=LATENT_PIXELS)
    height: int = setting(512, "Height of the training frames.", least=8, most=MOST_SIDE, multiple=LATENT_PIXELS)
    bucket_sizes: bool = setting(
        False,
        "Keep each clip's own shape at about the same area, instead of cropping all to one size. Clips of one size go "
        "through the model together, as many as clips_at_once says.",
    )
    bucket_step: int = setting(
        64, "Sizes of buckets are multiples of this many pixels.", least=8, most=MOST_SIDE, multiple=LATENT_PIXELS
    )
    crop: Crop = setting("centre", "Which part of a frame that does not fit is kept, for each sub-clip.")
    flip: bool = setting(False, "Mirror every second sub-clip. Swaps left and right, of which captions may speak.")
    fps_min: float = setting(4.0, "Lowest frame rate of a sub-clip, 0 for no limit.", most=MOST_RATE)
    fps_max: float = setting(30.0, "Highest frame rate of a sub-clip, 0 for the file's own.", most=MOST_RATE)
    image_fps: float = setting(
        8.0, "Frame rate of a folder of pictures, which has none of its own.", least=LEAST_RATE, most=MOST_RATE
    )
    draws_per_clip: int = setting(
        8, "Random sub-clips taken from each clip, one from each of as many equal stretches.", least=1, most=MOST_CLIPS
    )
    within_shots: bool = setting(True, "Look for cuts in the clips, and let no sub-clip cross one.")
    stills: bool = setting(True, "Take pictures that lie beside the clips as clips of one frame.")
    caption_prefix: str = setting("", "Put before every caption, such as a word that names the motion.")
    seed: int = setting(
        0, "Seed of everything that chance decides. The same inputs give the same adaptor.", most=MOST_SEED
    )

    def __post_init__(self) -> None:
        check_settings(self, "{name} is {found}; expected {expected}.")
        for name in ("fps_min", "fps_max"):
            if 0 < getattr(self, name) < LEAST_RATE:
                raise ValueError(f"{name} is {getattr(self, name)}, but frame rates begin at {LEAST_RATE:g}.")
        if self.bucket_sizes and self.width * self.height < self.bucket_step**2:
            raise ValueError(
                f"{self.width} x {self.height} is less than one bucket step of {self.bucket_step} by "
                f"{self.bucket_step}; choose a larger size or a smaller bucket_step."
            )
        if self.fps_max and self.fps_min > self.fps_max:
            raise ValueError(f"fps_min is {self.fps_min}, more than fps_max, which is {self.fps_max}.")

    def captioned(self, caption: str) -> str:
        """A caption as it is trained on, behind the prefix."""
        return " ".join(filter(None, (self.caption_prefix.strip(), caption)))

    def latents_depend_on(self) -> str:
        """The settings that decide what is in the cached latents, as text that is the same on every machine."""
        settings = {name: value for name, value in asdict(self).items() if name not in NOT_IN_LATENTS}
        # 4 and 4.0 are one rate.
        return json.dumps(settings | {name: float(settings[name]) for name in RATES}, sort_keys=True)
