"""What a resumed run must share with the one before."""

from dataclasses import replace
from typing import Any

from ..adaptor import AdaptorConfig
from ..whole_file import content_name
from .data.latent_clip import TrainingClips
from .settings import MotionModuleSettings, TrainingSettings

# Settings that a resumed run must share with the one before: they decide what a step sees and what is trained.
LASTING = (
    "seed",
    "batch",
    "base_tuning",
    "base_rank",
    "still_share",
    "base_still_share",
    "caption_dropout",
    "high_noise_share",
    "frame_noise_levels",
    "clean_context_share",
    "context_timesteps",
    "optimiser",
)
# Settings that say what a run costs and shows, and not what it learns: they may be others each time it goes on, in a
# graph too, where other inputs begin another run.
MAY_CHANGE = (
    "clips_at_once",
    "checkpointing",
    "base_precision",
    "frames_at_once",
    "offload_activations",
    "offload_averages",
    "save_every",
    "keep",
    "sample_every",
    "sample_steps",
    "sample_cfg",
    "validate_every",
)
# Of a run with a teacher.
SHARES = ("teacher_share", "prediction_share")


def trained_config(settings: TrainingSettings, config: AdaptorConfig) -> AdaptorConfig:
    """The settings of an adaptor, with what it says of its training once it is trained so."""
    return replace(config, frame_noise_levels=settings.frame_noise_levels, fps_guidance=settings.fps_guidance)


def adaptor_identity(settings: TrainingSettings, config: AdaptorConfig) -> dict[str, str]:
    """What a resumed run must share with the one before of its adaptor: the settings, as JSON."""
    return {"adaptor": trained_config(settings, config).to_json()}


def lasting_settings(settings: TrainingSettings) -> dict[str, Any]:
    """The settings of training that a resumed run must share with the one before, by name."""
    return {name: getattr(settings, name) for name in LASTING}


def identity_of(
    settings: TrainingSettings, trained: dict[str, str], clips: TrainingClips, shares: MotionModuleSettings
) -> dict[str, Any]:
    """What a resumed run must share with the one before.  ``trained`` says what is trained, as ``adaptor_identity``.

    The ``shares`` count where a teacher has made clips.
    """
    empty = content_name([("empty", clips.empty_text)])
    contents = {"clips": list(clips.train.groups), "clip_contents": [clips.train.content, empty]}
    contents["held_out"] = clips.held_out_content
    taught = {name: getattr(shares, name) for name in SHARES} if clips.taught else {}
    return lasting_settings(settings) | trained | contents | taught
