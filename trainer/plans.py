"""What a run trains, as command and node have been asked: an adaptor, which a motion module may teach, or a MotionLoRA.

Each plan says what a resumed run must share with the one before, which clips it needs, and puts the training together.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from comfy.model_patcher import ModelPatcher

from ..adaptor_unet.adaptor import VideoAdaptor
from ..adaptor_unet.host.base_model import check_fit
from ..adaptor_unet.host.hosted import adaptor_for
from ..adaptor_unet.host.teacher import TRAINED_FRAMES, HostTeacher
from ..adaptor_unet.host.training_files import HostEncoders
from ..adaptor_unet.temporal_network import content_of_network
from ..adaptor_unet.training.data.cache_files import hash_of
from ..adaptor_unet.training.data.latent_cache import FolderClips
from ..adaptor_unet.training.data.latent_clip import ClipSet, TrainingClips
from ..adaptor_unet.training.data.teacher_clips import TeacherWork, sampled_clips, with_teacher
from ..adaptor_unet.training.motion_lora_trainables import RANK, motion_lora_identity
from ..adaptor_unet.training.run_identity import adaptor_identity
from ..adaptor_unet.training.settings import RunSettings
from .motion_lora_training import MotionLoraTraining, check_module
from .motion_training import MotionTraining, RunParts

logger = logging.getLogger(__name__)

FEW_FRAMES = (
    "frames is %d, but motion modules are trained with %d. What a teacher samples may hardly move in clips that are "
    "shorter than those it knows."
)

NOTHING_MOVES = (
    "None of the clips moves: each has one frame, of which an adaptor learns no motion. The pictures of one clip go "
    "into a folder of their own, below the folder of clips; over a wire they come as one batch."
)


def begun_adaptor(model: ModelPatcher, start: VideoAdaptor | None, settings: RunSettings) -> VideoAdaptor:
    """The adaptor that a run begins with: ``start``, or a new one as the settings say.

    Raises ValueError when it does not fit the model.
    """
    adaptor = adaptor_for(model, **settings.adaptor_settings) if start is None else start
    check_fit(model, adaptor.config)
    return adaptor


@dataclass(frozen=True)
class Teaching:
    """A motion module that teaches an adaptor on the model, by clips of the prompts.

    ``base`` names all weights of the model, ``encoders`` those of its autoencoder and text encoder.
    """

    model: ModelPatcher
    motion_module: ModelPatcher
    prompts: tuple[str, ...]
    base: str
    encoders: str

    @cached_property
    def name(self) -> str:
        """A name for all weights of the teacher: the model's and the motion module's."""
        return hash_of(self.base, content_of_network(self.motion_module.model))

    def check(self, settings: RunSettings, adaptor: VideoAdaptor) -> None:
        """Raises ValueError for what cannot work: a module that does not fit, or what the teacher knows nothing of."""
        check_module(self.model, self.motion_module, settings.clips.frames)
        if settings.clips.frames < TRAINED_FRAMES:
            logger.warning(FEW_FRAMES, settings.clips.frames, TRAINED_FRAMES)
        tuning, share = settings.training.base_tuning, adaptor.config.shared_noise
        if tuning != "frozen":
            raise ValueError(
                f"base_tuning is {tuning}, but a teacher is the frozen model with its motion module, and must stay as "
                "it is: set base_tuning to frozen, or train without a teacher."
            )
        if share and settings.motion_module.prediction_share:
            raise ValueError(
                f"shared_noise is {share}, but a motion module was trained with noise that frames do not share, so its "
                "predictions would be wrong. Set shared_noise to 0, or prediction_share to 0 to learn from its clips "
                "alone."
            )

    def clips(
        self,
        settings: RunSettings,
        cache: Path,
        encoders: Callable[[], HostEncoders],
        progress: Callable[[int, int, str], None],
    ) -> FolderClips:
        """The clips of all prompts; those that are not in the cache are sampled now."""
        how = settings.motion_module
        work = TeacherWork(self.prompts, settings.clips, how, self.name, self.encoders)
        sampler = HostTeacher.of(self.model, self.motion_module, work.shape, how.teacher_steps, how.teacher_cfg)
        return sampled_clips(work, cache, encoders, sampler.clip, progress)


@dataclass(frozen=True)
class AdaptorPlan:
    """The plan of a run that trains an adaptor, perhaps with a teacher."""

    adaptor: VideoAdaptor
    teaching: Teaching | None = None

    def check(self, settings: RunSettings) -> None:
        """Raises ValueError when the adaptor does not go with the settings or the teacher."""
        parts = self.adaptor.config.parts
        if settings.training.fps_guidance and "fps" not in parts:
            raise ValueError(
                f"fps_guidance strengthens the frame rate, but the adaptor has no part fps, only {', '.join(parts)}. "
                "Take one with that part, or leave fps_guidance out."
            )
        if self.teaching is not None:
            self.teaching.check(settings, self.adaptor)

    def identity(self, settings: RunSettings) -> dict[str, str]:
        """What a resumed run must share with the one before, of the adaptor and of the teacher, by name."""
        taught = {"teacher": self.teaching.name} if self.teaching is not None else {}
        return adaptor_identity(settings.training, self.adaptor.config) | taught

    def clips(
        self,
        own: TrainingClips | None,
        settings: RunSettings,
        cache: Path,
        encoders: Callable[[], HostEncoders],
        progress: Callable[[int, int, str], None],
    ) -> TrainingClips:
        """What the run learns from: the user's ``own`` clips, if there are any, and the teacher's."""
        if self.teaching is None:
            # What moves is looked at first, where there is any.
            shown = own.held_out if settings.clips.frames > 1 else ()
            if shown and all(len(clip.latents) == 1 for clip in shown):
                logger.warning(NOTHING_MOVES)
            return own
        sampled = self.teaching.clips(settings, cache, encoders, progress)
        return with_teacher(own, sampled, settings.training.validation_clips)

    def training(self, parts: RunParts, settings: RunSettings) -> MotionTraining:
        """The run of these parts, ready to start.  Raises what ``MotionTraining`` does."""
        shares, teacher = settings.motion_module, None
        if self.teaching is not None and shares.predicted(alone=len(parts.clips.train.groups) == 1):
            teacher = self.teaching.motion_module.model  # the run keeps a copy of it
        return MotionTraining(replace(parts, teacher=teacher, shares=shares), self.adaptor)


def stills_in(clips: ClipSet) -> int:
    """How many of the clips have one frame; those of a folder need not be read for it."""
    if isinstance(clips, FolderClips):
        return sum(rate == 0 for clip in clips.clips for rate in clip.fps)
    return sum(len(clips[item].latents) == 1 for item in range(len(clips)))


@dataclass(frozen=True)
class MotionLoraPlan:
    """The plan of a run that trains a MotionLoRA on a motion module."""

    model: ModelPatcher
    motion_module: ModelPatcher

    def check(self, settings: RunSettings) -> None:
        """Raises ValueError when the module does not fit the model or the clips."""
        check_module(self.model, self.motion_module, settings.clips.frames)

    @cached_property
    def name(self) -> str:
        """A name for all weights of the motion module."""
        return content_of_network(self.motion_module.model)

    def identity(self, settings: RunSettings) -> dict[str, str]:
        """What a resumed run must share with the one before, of the LoRA and of the module, by name."""
        module = self.motion_module.model
        return motion_lora_identity(module, settings.adaptor.rank or RANK) | {"motion_module": self.name}

    def clips(self, own: TrainingClips, *_: object) -> TrainingClips:
        """The user's ``own`` clips.  Raises ValueError for stills, to which a motion module does nothing."""
        stills = stills_in(own.train)
        if stills:
            raise ValueError(
                f"{stills} of {len(own.train)} clips have one frame, of which a MotionLoRA can learn nothing. Take "
                "them out, or set stills to false."
            )
        return own

    def training(self, parts: RunParts, settings: RunSettings) -> MotionTraining:
        """The run of these parts, ready to start.  Raises what ``MotionTraining`` does."""
        rank, layout = settings.adaptor.rank or RANK, settings.motion_module.lora_layout
        return MotionLoraTraining(parts, self.motion_module, rank=rank, layout=layout)


Plan = AdaptorPlan | MotionLoraPlan
