"""All settings of a training run, each declared once; checked when made."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..adaptor import PARTS, FrameNoiseLevels
from ..initialisation import Init
from ..sites import ATTENTION_AT, AttentionAt
from .data.data_settings import DataSettings
from .setting_fields import (
    LEAST_RATE,
    MOST_CLIPS,
    MOST_FRAMES,
    MOST_RANK,
    MOST_RATE,
    MOST_SAMPLING_STEPS,
    MOST_SEED,
    MOST_STEPS,
    changed,
    check_names,
    check_settings,
    setting,
    settings_of,
)

Weighting = Literal["none", "min_snr", "high_noise"]
BaseTuning = Literal["frozen", "lora", "full"]
Precision = Literal["auto", "fp32", "bf16"]
BasePrecision = Literal["auto", "fp8"]
Optimiser = Literal["adamw", "adamw_8bit"]
Train = Literal["adaptor", "motion_lora"]
LoraLayout = Literal["animatediff", "diffusers"]
FEW_CLIPS = 4
# Finished frames have this timestep, of 1000, when a clip is sampled frame after frame (``CONTEXT_NOISE``).
FINISHED_TIMESTEP = 20
# Ways of noise levels by which an adaptor learns from finished frames.
GIVEN_FINISHED = ("clean_context", "finished_frames")
SENTENCE = "{name} must be {expected}, found {found}"


@dataclass(frozen=True)
class NewAdaptorSettings:
    """The adaptor that a run begins with: a new one of these settings, or the one in the file ``start``.

    With ``start`` the others must be left as they are.  Raises ValueError for values that cannot work.
    """

    rank: int = setting(
        0,
        "Rank of the temporal attention's weights: 0 for full; 64 makes a much smaller file. Of a MotionLoRA, 0 takes "
        "16.",
        most=MOST_RANK,
        tooltip="Rank of the temporal attention's weights: 0 for full; 64 makes a much smaller file.",
    )
    rotary: bool = setting(False, "Rotary encoding of the frame distance in temporal attention.")
    init: Init = setting("spatial", "Temporal attention starts from the model's own self-attention, or at random.")
    parts: tuple[str, ...] = setting(PARTS, "The parts of the adaptor.", choices=PARTS)
    attention_at: AttentionAt = setting(
        ATTENTION_AT,
        "Of a spatial transformer with several blocks, as SDXL has, temporal attention in every one or in the first.",
        tooltip="Where a spatial transformer has several blocks, as in SDXL: temporal attention in every one, or in "
        "the first, for a much smaller file. For SD1.5 and SD2 both are the same.",
    )
    shared_noise: float = setting(
        0.0,
        "Share of each frame's noise that is the first frame's, in training and wherever the adaptor is applied.",
        share=True,
    )
    start: str = setting("", "Adaptor file to begin from, in place of a new adaptor.")

    def __post_init__(self) -> None:
        if isinstance(self.parts, list):  # in a TOML file
            object.__setattr__(self, "parts", tuple(self.parts))
        check_settings(self, SENTENCE)
        own = {field.name: field.default for field in fields(self) if field.name != "start"}
        if self.start and any(getattr(self, name) != default for name, default in own.items()):
            raise ValueError(f"start brings its own {', '.join(own)}: leave those out, or leave start out")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.  Raises ValueError for values that cannot work.

    The rate of attention and fps layers is ``learning_rate``, that of S and B ``adaptor_rate_factor`` times it, that of
    a tuned base ``base_rate``; each rises over ``warm_up`` steps and then falls to zero as a cosine.

    Noise of a clip's frames, ``frame_noise_levels``: ``one_a_clip``, the same level for all; ``one_a_frame``, a level
    drawn for each; ``clean_context``, like that, but in ``clean_context_share`` of the clips the frames before a random
    place are nearly clean; ``finished_frames``, a level drawn for each frame, and each is given all earlier ones nearly
    clean, in twice the rows, so that every frame is trained as it is sampled frame after frame.  Nearly clean: a
    timestep drawn from those below ``context_timesteps``.
    """

    steps: int = setting(
        500,
        "Training steps, of batch clips each.",
        least=1,
        most=MOST_STEPS,
        tooltip="Training steps, of one clip each.",
    )
    batch: int = setting(1, "Clips a step, over all processes.", least=1, most=MOST_CLIPS)
    clips_at_once: int = setting(
        1, "Clips of a step that are in memory together, on one process.", least=1, most=MOST_CLIPS
    )
    learning_rate: float = setting(
        0.0, "0 chooses: 1e-4, or 3e-5 for fewer than four clips, which are learnt by heart too soon."
    )
    adaptor_rate_factor: float = setting(
        8.0, "How many times faster S and B learn than attention and fps layers, whose rate is learning_rate.", above=0
    )
    base_rate: float = setting(1e-4, "Learning rate of the base, where it is tuned along.")
    weight_decay: float = setting(0.01, "Decay of all weights but S and B.")
    warm_up: int = setting(
        20, "Steps over which the rate rises; then it falls to zero along a cosine.", most=MOST_STEPS
    )
    clip_norm: float = setting(1.0, "Gradients are shortened to this length.", above=0)
    ema: float = setting(
        0.98, "Decay of the averaged weights, which are the ones saved; 0 saves the last ones.", below=1
    )
    weighting: Weighting = setting("high_noise", "Which noise levels count more in the loss.")
    weighting_cap: float = setting(20.0, "Limit of the weighting.", least=1)
    high_noise_share: float = setting(
        0.0,
        "Share of clips that are drawn from the noisier half of the timesteps alone, where layout and motion are "
        "decided.",
        share=True,
    )
    frame_noise_levels: FrameNoiseLevels = setting(
        "finished_frames",
        "Noise levels of a clip's frames: the same for all, one for each, one for each with earlier frames nearly "
        "clean, or one for each with all earlier ones given nearly clean.",
    )
    clean_context_share: float = setting(
        0.6, "Share of clips whose earlier frames are nearly clean, for clean_context.", share=True
    )
    context_timesteps: int = setting(
        60,
        "Nearly clean frames have a timestep below this; above 20, which they have when a clip is sampled frame by "
        "frame.",
        least=1,
        most=1000,
    )
    caption_dropout: float = setting(
        0.1, "Share of clips shown with an empty caption, so that guidance works.", share=True
    )
    fps_guidance: bool = setting(
        False, "Without a caption clips are shown without their frame rate too, so that guidance strengthens both."
    )
    still_share: float = setting(0.1, "Share of steps on single frames with the adaptor.", share=True)
    base_still_share: float = setting(
        0.0, "Share of steps on single frames without it, to keep a tuned base an image model.", share=True
    )
    base_tuning: BaseTuning = setting(
        "frozen",
        "What is trained of the base: nothing, a LoRA on it (saved for any LoRA loader), or all of it (saved as a "
        "checkpoint).",
        tooltip="frozen: the adaptor alone, which then fits every fine-tune. lora: a LoRA on it is trained along and "
        "saved in models/loras. full: the whole model, saved in models/checkpoints.",
    )
    base_rank: int = setting(16, "Rank of that LoRA.", least=1, most=MOST_RANK)
    precision: Precision = setting("auto", "What is computed in; auto takes bfloat16 where the processor has it.")
    checkpointing: bool = setting(True, "Compute activations again instead of keeping them: far less memory.")
    base_precision: BasePrecision = setting(
        "auto",
        "What the weights of a base that is not trained are kept in: auto, what is computed in; fp8, 8 bits, which "
        "rounds them and needs half of bf16's memory.",
    )
    optimiser: Optimiser = setting(
        "adamw",
        "What changes the weights. adamw_8bit keeps its two moments in a quarter of the memory, and needs the library "
        "bitsandbytes.",
    )
    frames_at_once: int = setting(
        0,
        "Frames that go together through the widest layers, 0 for all. Few take far less memory and a little more "
        "time.",
        most=MOST_FRAMES,
    )
    offload_activations: bool = setting(
        False, "Activations wait for the gradients in main memory: far less on the card, and slower."
    )
    offload_averages: bool = setting(False, "The averaged weights are kept in main memory, and not on the card.")
    save_every: int = setting(100, "Steps between saved states.", least=1, most=MOST_STEPS)
    keep: int = setting(2, "States that are kept.", least=1, most=MOST_STEPS)
    sample_every: int = setting(100, "Steps between sample clips, 0 for none.", most=MOST_STEPS)
    sample_steps: int = setting(20, "Sampling steps of a sample clip.", least=1, most=MOST_SAMPLING_STEPS)
    sample_cfg: float = setting(7.0, "Guidance of a sample clip.")
    validate_every: int = setting(50, "Steps between looks at the validation loss, 0 for none.", most=MOST_STEPS)
    validation_clips: int = setting(
        4, "Clips that are held out for it, where there are enough.", least=1, most=MOST_CLIPS
    )
    seed: int = setting(
        0, "Seed of everything that chance decides. The same inputs give the same adaptor.", most=MOST_SEED
    )

    def __post_init__(self) -> None:
        check_settings(self, SENTENCE)
        if self.still_share + self.base_still_share > 1:
            raise ValueError("still_share and base_still_share together must not exceed 1")
        if self.frame_noise_levels in GIVEN_FINISHED and self.context_timesteps <= FINISHED_TIMESTEP:
            raise ValueError(
                f"context_timesteps is {self.context_timesteps}, but finished frames have timestep {FINISHED_TIMESTEP} "
                "where a clip is sampled frame by frame, which would not be trained: choose more than "
                f"{FINISHED_TIMESTEP}, such as 60"
            )
        if self.fps_guidance and not self.caption_dropout:
            raise ValueError(
                "fps_guidance is learnt from clips that are shown without caption and frame rate, but caption_dropout "
                "is 0: choose a share, such as 0.1, or leave fps_guidance out"
            )
        if self.base_precision == "fp8" and self.base_tuning == "full":
            raise ValueError(
                "base_precision fp8 is for a base that stays as it is, but base_tuning is full: choose frozen or lora, "
                "or base_precision auto"
            )
        if self.base_still_share and self.base_tuning == "frozen":
            raise ValueError(
                "base_still_share trains the base alone, but base_tuning is frozen: choose lora or full, or 0"
            )

    def rate(self, clips: int) -> float:
        """The highest learning rate of attention and fps layers for a set of that many clips."""
        return self.learning_rate or (3e-5 if clips < FEW_CLIPS else 1e-4)


@dataclass(frozen=True)
class MotionModuleSettings:
    """What is done with a public motion module, where a run has one: it teaches an adaptor, or a LoRA on it is trained.

    The teacher is the image model with the module.  It samples ``teacher_clips`` clips for each prompt; with clips of
    the user's own beside, ``teacher_share`` of what is trained on are the teacher's.  Of those, ``prediction_share``
    are learnt with one noise level for all frames, towards what the teacher takes the clean clip for at that level;
    the others as ``frame_noise_levels`` says, towards the clip itself.
    """

    train: Train = setting(
        "adaptor",
        "What is trained: an adaptor, or a MotionLoRA on a motion module.",
        tooltip="adaptor: an adaptor, which a motion module may teach. motion_lora: a MotionLoRA on the motion module.",
    )
    lora_layout: LoraLayout = setting(
        "animatediff", "Names in a MotionLoRA's file: AnimateDiff's, or those of the diffusers library."
    )
    teacher_share: float = setting(
        0.5, "Share of the clips of a step that are the teacher's, where there are clips of your own too.", share=True
    )
    # Clips alone gave more even steps than with half of them learnt towards predictions (docs/distillation.md).
    prediction_share: float = setting(
        0.0,
        "Share of the teacher's clips that are learnt towards its prediction at one noise level; the others towards "
        "the clip itself, as frame_noise_levels says. With one_a_clip, take 1.",
        share=True,
    )
    teacher_clips: int = setting(4, "Clips that the teacher samples for each prompt.", least=1, most=MOST_CLIPS)
    teacher_steps: int = setting(25, "Sampling steps of the teacher's clips.", least=1, most=MOST_SAMPLING_STEPS)
    teacher_cfg: float = setting(7.5, "Guidance of the teacher's clips.")
    teacher_fps: float = setting(
        8.0, "Frame rate of the teacher's clips, as the adaptor is told it.", least=LEAST_RATE, most=MOST_RATE
    )

    def __post_init__(self) -> None:
        check_settings(self, SENTENCE)

    def predicted(self, alone: bool) -> float:
        """Share of the clips of a step that are learnt towards the teacher's prediction.

        ``alone``: whether there are no others than the teacher's.
        """
        return (1.0 if alone else self.teacher_share) * self.prediction_share


SETTING_GROUPS = {
    "clips": DataSettings,
    "adaptor": NewAdaptorSettings,
    "training": TrainingSettings,
    "motion_module": MotionModuleSettings,
}
# What a MotionLoRA is trained with: its module knows one noise level a clip, and does nothing to stills.
FOR_MOTION_LORA = {"frame_noise_levels": "one_a_clip", "still_share": 0.0, "stills": False}
# Settings of adaptors, of which a MotionLoRA has none.
OF_ADAPTORS = ("rotary", "init", "parts", "attention_at", "shared_noise", "fps_guidance")
# Settings of a motion module that teaches.
OF_TEACHERS = ("teacher_share", "prediction_share", "teacher_clips", "teacher_steps", "teacher_cfg", "teacher_fps")
# Settings that are those of a new adaptor as they are.
PASSED_ON = ("rank", "rotary", "parts", "attention_at", "shared_noise")
# By name; frames and seed are declared where they serve first.
ALL_SETTINGS = {name: one for group in reversed(SETTING_GROUPS.values()) for name, one in settings_of(group).items()}


@dataclass(frozen=True)
class RunSettings:
    """Every setting of one run, by group.  Raises ValueError for settings of adaptors where a MotionLoRA is trained."""

    clips: DataSettings
    adaptor: NewAdaptorSettings
    training: TrainingSettings
    motion_module: MotionModuleSettings

    def __post_init__(self) -> None:
        if self.motion_module.train == "adaptor":
            if "lora_layout" in changed(self.motion_module):
                raise ValueError("lora_layout is of MotionLoRAs, but an adaptor is trained: leave it out")
            return
        found = asdict(self.clips) | asdict(self.training) | asdict(self.adaptor)
        chosen = {*changed(self.adaptor), *changed(self.training)}
        for name in OF_ADAPTORS:
            if name in chosen:
                raise ValueError(f"{name} is of adaptors, but a MotionLoRA is trained: leave it out")
        for name, needed in (FOR_MOTION_LORA | {"base_tuning": "frozen", "start": ""}).items():
            if found[name] != needed:
                raise ValueError(
                    f"{name} is {found[name]!r}, but a MotionLoRA is trained with {needed!r}: leave it out"
                )

    def check_teacher(self, teacher: bool) -> None:
        """Raises ValueError for settings of a teacher where a run has none."""
        for name in changed(self.motion_module):
            if name in OF_TEACHERS and not teacher:
                raise ValueError(f"{name} is of a motion module that teaches, and there is none: leave it out")

    def told(self, motion_module: bool) -> dict[str, Any]:
        """All settings as plain values; those of a motion module only where the run has one."""
        values = asdict(self)
        return values if motion_module else {name: group for name, group in values.items() if name != "motion_module"}

    @property
    def adaptor_settings(self) -> dict[str, Any]:
        """The arguments with which ``adaptor_for`` makes the run's new adaptor."""
        wanted, training = self.adaptor, self.training
        made = {"init": wanted.init, "seed": training.seed, "frames": self.clips.frames}
        return made | {name: getattr(wanted, name) for name in PASSED_ON}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "RunSettings":
        """From settings by name; ``seed`` serves all groups that have one.  Raises ValueError."""
        check_names(values, ALL_SETTINGS)
        if values.get("train") == "motion_lora":
            values = FOR_MOTION_LORA | values
        return cls(
            **{
                group: kind(**{name: value for name, value in values.items() if name in settings_of(kind)})
                for group, kind in SETTING_GROUPS.items()
            }
        )
