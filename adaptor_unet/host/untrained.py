"""What makes frames steadier without anything trained, set on a clone of a model."""

from comfy.model_patcher import ModelPatcher

from ..look_back import LookBack
from .acting import noise_levels
from .alignment import Alignment
from .base_model import config_for
from .binding import with_more
from .directed_attention import SIDES, DirectedAttention


def with_directed_attention(
    model: ModelPatcher,
    look_back: str = "first and previous",
    last_frames: int = 2,
    where: str = "middle and decoder",
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    frames_per_clip: int = 0,
) -> ModelPatcher:
    """A clone of the model whose self-attention reads earlier frames' tokens too; the model itself stays as it is.

    Raises ValueError when the model or the settings do not fit.
    """
    if where not in SIDES:
        raise ValueError(f"where of Directed Attention must be one of {', '.join(SIDES)}; found {where!r}.")
    look = DirectedAttention(
        look_back=LookBack(look_back, last_frames),
        sites=tuple(site for site in config_for(model).transformers if site.block[0] in SIDES[where]),
        strength=strength,
        frames_per_clip=frames_per_clip,
        levels=noise_levels(model, start_percent, end_percent),
    )
    return with_more(model, looks=(look,))


def with_aligned_frames(
    model: ModelPatcher,
    at: str = "latent",
    strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    frames_per_clip: int = 0,
) -> ModelPatcher:
    """A clone of the model that gives each frame's channels the first frame's mean and standard deviation.

    Raises ValueError when the model or the settings do not fit.
    """
    config = config_for(model)
    alignment = Alignment(
        at=at,
        sites=config.sites if at == "features" else (),
        strength=strength,
        frames_per_clip=frames_per_clip,
        levels=noise_levels(model, start_percent, end_percent),
    )
    bound = with_more(model, alignments=(alignment,))
    if at == "latent":
        bound.set_model_sampler_post_cfg_function(alignment.predicted)
    return bound
