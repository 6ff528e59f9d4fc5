"""How clips become training data: which frames, at which rate, of which size."""

import json
from dataclasses import asdict, dataclass
from math import isfinite

CROPS = ("centre", "random")
RATES = ("fps_min", "fps_max", "image_fps")
# The autoencoder of SD1.5 makes one latent of 8 by 8 pixels.
LATENT_PIXELS = 8
# What these say does not reach the latents, so changing them keeps the cache.
NOT_IN_LATENTS = ("stills", "caption_prefix")


@dataclass(frozen=True)
class DataSettings:
    """Settings of the data; raises ValueError when a value makes no sense.

    ``frames``: F, frames of a sub-clip; the paper takes 16.
    ``width``, ``height``: size of a frame in pixels.
    ``bucket_sizes``: keep each clip's shape by choosing a size of at most the same area, in steps of ``bucket_step``,
    instead of cropping every clip to one size.  A batch then needs clips of one size.
    ``crop``: which part of a frame that does not fit is kept, the "centre" or a "random" one for each sub-clip.
    ``flip``: mirror every second sub-clip.  Off, because it swaps left and right, of which captions speak.
    ``fps_min``, ``fps_max``: range of a sub-clip's frame rate; 0 leaves an end open.  At 4 a second 16 frames show four
    seconds, and steps are still small enough to follow; above 30 hardly anything moves.
    ``image_fps``: frame rate of a folder of pictures, which has none of its own.
    ``draws_per_clip``: random sub-clips taken from a clip, one from each of as many equal stretches, so that a long
    clip is covered.  They are drawn once, because their latents are cached.
    ``stills``: take pictures that lie beside the clips as clips of one frame.
    ``caption_prefix``: put before every caption, such as a word that names the motion.
    ``seed``: another seed draws other sub-clips.
    """

    frames: int = 16
    width: int = 512
    height: int = 512
    bucket_sizes: bool = False
    bucket_step: int = 64
    crop: str = "centre"
    flip: bool = False
    fps_min: float = 4.0
    fps_max: float = 30.0
    image_fps: float = 8.0
    draws_per_clip: int = 8
    stills: bool = True
    caption_prefix: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("width", 8), ("height", 8), ("bucket_step", 8), ("draws_per_clip", 1)):
            value = getattr(self, name)
            if not whole(value) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}.")
        for name in ("width", "height", "bucket_step"):
            if getattr(self, name) % LATENT_PIXELS:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a multiple of {LATENT_PIXELS}.")
        if self.bucket_sizes and self.width * self.height < self.bucket_step**2:
            raise ValueError(
                f"{self.width} x {self.height} is less than one bucket step of {self.bucket_step} by "
                f"{self.bucket_step}; choose a larger size or a smaller bucket_step."
            )
        if self.crop not in CROPS:
            raise ValueError(f"crop is {self.crop!r}; expected one of {', '.join(CROPS)}.")
        for name in ("bucket_sizes", "flip", "stills"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected true or false.")
        for name in RATES:
            value = getattr(self, name)
            if not number(value) or value < 0:
                raise ValueError(f"{name} is {value!r}; expected a number of frames a second, not below 0.")
        if self.fps_max and self.fps_min > self.fps_max:
            raise ValueError(f"fps_min is {self.fps_min}, more than fps_max, which is {self.fps_max}.")
        if self.image_fps == 0:
            raise ValueError("image_fps is 0; a folder of pictures needs a frame rate, such as 8.")
        if not isinstance(self.caption_prefix, str):
            raise ValueError(f"caption_prefix is {self.caption_prefix!r}; expected text.")
        if not whole(self.seed):
            raise ValueError(f"seed is {self.seed!r}; expected a whole number.")

    def captioned(self, caption: str) -> str:
        """A caption as it is trained on, behind the prefix."""
        return " ".join(filter(None, (self.caption_prefix.strip(), caption)))

    def latents_depend_on(self) -> str:
        """The settings that decide what is in the cached latents, as text that is the same on every machine."""
        settings = {name: value for name, value in asdict(self).items() if name not in NOT_IN_LATENTS}
        # 4 and 4.0 are one rate.
        return json.dumps(settings | {name: float(settings[name]) for name in RATES}, sort_keys=True)


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
