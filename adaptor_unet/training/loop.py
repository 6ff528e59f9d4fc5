"""The training loop, on one process or, with Hugging Face Accelerate, on many.

Axes: b clips, f frames of a clip, c h w of a latent, n tokens, d text channels.
"""

import errno
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, reduce, repeat
from safetensors import SafetensorError
from torch import Tensor

from ..fps_embedding import NOT_TOLD
from ..frame_noise import clip_noise
from ..temporal_network import Network
from ..whole_file import OutputError
from .data.data_settings import LATENT_PIXELS
from .data.latent_clip import STILL_FPS, LatentClip, TrainingClips
from .estimate import Work, pass_time
from .objective import Denoiser, NoisyFrames, Objective, Teacher
from .processes import check_processes
from .run_identity import identity_of
from .run_state import RunState, go_on
from .settings import MotionModuleSettings, TrainingSettings
from .step_plan import PlannedClip, StepKind, StepPlan, draw_context, draw_timesteps, plan_step
from .trainables import MovingAverage, Trained, set_rates
from .training_error import (
    MAY_BE_MEMORY,
    ClipError,
    OutOfMemoryError,
    TrainingError,
    free_memory,
    is_out_of_memory,
    lower,
)
from .validation import validation_loss
from .watchers import SAMPLE, SAVING, TIMING, TRAINING, VALIDATION, Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A clip as one step sees it: with its noise ``f c h w``, its timesteps ``f``, and its text or none, ``n d``.

    ``finished_noise`` and ``finished_timesteps`` are those of its frames as earlier ones that are given, or None.
    ``predicted``: what is wanted is the teacher's prediction, and not the clip itself.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor
    fps: float
    finished_noise: Tensor | None = None
    finished_timesteps: Tensor | None = None
    predicted: bool = False

    @property
    def kind(self) -> tuple[int, ...]:
        """Those that are alike in it can go through the model together."""
        return (*self.latents.shape, *self.text.shape, self.predicted)


@dataclass
class TrainingRun:
    """One run, on one process of perhaps several, computing in ``dtype``.

    ``export(step, final)`` writes the files that a user keeps, ``sample`` renders a clip ``f h w 3``; both are called
    while the averaged weights stand in the modules.  ``run_identity``: what else a resumed run must share with the one
    before.  ``foretells``: who watches is told first how long it will take.  ``teacher``: whose predictions are learnt
    on the clips that it has sampled, by ``shares`` of them.  Raises ValueError when the settings do not fit the
    processes.
    """

    denoiser: Denoiser
    trainables: Trained
    clips: TrainingClips
    settings: TrainingSettings
    folder: Path
    accelerator: "Accelerator"
    watcher: Watcher
    export: Callable[[int, bool], object]
    sample: Callable[[], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    run_identity: dict[str, Any] = field(default_factory=dict)
    foretells: bool = False
    teacher: Teacher | None = None
    shares: MotionModuleSettings = MotionModuleSettings()

    def __post_init__(self) -> None:
        settings = self.settings
        check_processes(settings, self.accelerator.num_processes)
        self.objective = Objective(self.denoiser, settings)
        self.optimiser = self.trainables.optimiser(self.trainables.rate(len(self.clips.train)))
        self.averages = MovingAverage(self.trainables.parameters, settings.ema, settings.offload_averages)
        run_identity = identity_of(settings, self.trainables.identity, self.clips, self.shares) | self.run_identity
        self.state = RunState(self.trainables.parameters, self.averages, self.optimiser, run_identity)
        self.doing, self.whole = "", True  # what the run does now; False while a step changes its tensors

    def resume(self) -> bool:
        """Goes on from the last sound state in the run's folder, if there is one."""
        return go_on(self.state, self.folder)

    def train(self) -> bool:
        """Trains to the last step; False when a watcher stopped it before.  Either way all is saved.

        Raises OutOfMemoryError when memory is too short, ClipError when a clip cannot be read any more, and
        TrainingError when numbers or sample clips cannot be written; after what was learnt until then is saved.
        """
        try:
            finished = self._all_steps()
        except self.watcher.stop_errors as error:
            # In the middle of a step too: its tensors are changed only once all of it is computed.
            self.watcher.stopped(error)
            finished = False
        except ClipError as error:
            raise ClipError(f"{error} {self._kept()}") from error
        except OutputError as error:
            raise TrainingError(f"{error} {self._kept()}") from error
        except MAY_BE_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            raise self._out_of_memory(error) from error
        self.save(final=True)
        return finished

    def _out_of_memory(self, error: BaseException) -> OutOfMemoryError:
        """To be raised: what memory was too short for, what to lower, and what is kept, once that is saved."""
        free_memory(error)
        settings, latents = self.settings, self.clips.train[0].latents
        size = f"{len(latents)} frames of {latents.shape[-1] * LATENT_PIXELS}x{latents.shape[-2] * LATENT_PIXELS}"
        doing, step = self.doing, self.state.step + (self.doing == TRAINING)
        kept, place = self._kept(), f"step {step} of {settings.steps}, {size}"
        card = self.accelerator.device.type != "cpu"
        return OutOfMemoryError(f"Out of memory during {doing} ({place}). {lower(doing, settings, card)} {kept}")

    def _kept(self) -> str:
        """Saves what was learnt, if it is whole, and says what a run can be gone on from."""
        if not self.state.step:
            return "Nothing was learnt yet."
        if self.whole and self.accelerator.is_main_process:
            try:
                self._write(final=False)
                return f"What was learnt in {self.state.step} steps is saved."
            except MAY_BE_MEMORY:  # TrainingError is one of them
                self.whole = False
        return "What was saved before is intact."

    def _all_steps(self) -> bool:
        """All steps that are left and the looks at them; False when a watcher asked to stop between two."""
        if self.foretells and self.accelerator.is_main_process:
            self._foretell()
        if self.state.step == 0:
            self._look()
        while self.state.step < self.settings.steps:
            if self._asked_to_stop():
                return False
            began = time.perf_counter()
            values = self._step(self.state.step)
            self.state.step += 1
            values["seconds"] = time.perf_counter() - began
            if self.accelerator.is_main_process:
                self.watcher.numbers(self.state.step, self.settings.steps, values)
            if self.state.step % self.settings.save_every == 0 and self.state.step < self.settings.steps:
                self.save(final=False)
            self._look()
        return True

    def _foretell(self) -> None:
        """Times a few passes, and tells how long the run will take."""
        settings, done, clip = self.settings, self.state.step, self.clips.train[0]
        self._phase(TIMING, 0, 0)
        with self.autocast():
            took = pass_time(self.denoiser, self.trainables.network, clip.latents, self.clips.empty_text)
        left = range(done + bool(done), settings.steps + 1)
        validations, samples = (
            sum(is_due(every, step, settings.steps) for step in left)
            for every in (settings.validate_every, settings.sample_every if self.sample else 0)
        )
        clips = math.ceil(settings.batch / self.accelerator.num_processes)
        steps, held_out = settings.steps - done, len(self.clips.held_out)
        work = Work(settings, len(clip.latents), held_out, steps, clips, validations, samples, self._predicted())
        self.watcher.note(work.told(took, tuple(clip.latents.shape[-2:])))

    def _predicted(self) -> float:
        """Share of the clips of a step that are learnt towards the teacher's prediction."""
        if not self.clips.taught:
            return 0.0
        alone = len(self.clips.train.groups) == 1
        return (1.0 if alone else self.shares.teacher_share) * self.shares.prediction_share

    def _phase(self, doing: str, done: int, total: int) -> None:
        """Who watches is told what is done now."""
        self.doing = doing
        if self.accelerator.is_main_process:
            self.watcher.phase(doing, done, total)

    def autocast(self) -> torch.autocast:
        """Mixed precision.  Not Accelerate's, which a process can choose only once."""
        half = self.dtype is not torch.float32
        return torch.autocast(self.accelerator.device.type, self.dtype if half else None, enabled=half)

    def _step(self, step: int) -> dict[str, float]:
        self._phase(TRAINING, step, self.settings.steps)
        share = self.shares.teacher_share if self.clips.taught else None
        plan = plan_step(step, self.settings, tuple(self.clips.train.groups), share)
        set_rates(self.optimiser, step, self.settings)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.accelerator.device)
        for examples in self._micro_batches(plan):
            with self.autocast():
                loss = self._errors(examples, plan.kind).sum() / len(plan.batch)
            loss.backward()
            total += loss.detach()
        self._sum_over_processes(total)
        norm = torch.nn.utils.clip_grad_norm_(self.trainables.parameters.values(), self.settings.clip_norm)
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise TrainingError(
                f"The loss of step {step + 1} is {float(total)} and its gradient {float(norm)}, which are no finite "
                "numbers. What was saved last is sound: go on from it with a lower learning_rate, or precision fp32."
            )
        self.whole = False
        self.optimiser.step()
        self.averages.update(step)
        self.whole = True
        return {"loss": float(total), "gradient": float(norm), "rate": self.optimiser.param_groups[0]["lr"]}

    def _micro_batches(self, plan: StepPlan) -> Iterator[list[Example]]:
        """This process's share of a step, clips of one shape at a time."""
        waiting: list[Example] = []
        for planned in plan.batch[self.accelerator.process_index :: self.accelerator.num_processes]:
            example = self._example(planned)
            if waiting and (len(waiting) == self.settings.clips_at_once or example.kind != waiting[0].kind):
                yield waiting
                waiting = []
            waiting.append(example)
        yield waiting

    def _example(self, planned: PlannedClip) -> Example:
        """A clip with all that chance gives it, drawn in this order."""
        clip, generator, settings = self._clip(planned.item), planned.generator(), self.settings
        predicted = planned.taught and float(torch.rand(1, generator=generator)) < self.shares.prediction_share
        if predicted:  # the teacher knows one noise level a clip
            settings = replace(settings, frame_noise_levels="one_a_clip")
        levels, frames = len(self.denoiser.sigmas), len(clip.latents)
        shape, shared = tuple(clip.latents.shape), self.trainables.shared_noise
        timesteps = draw_timesteps(settings, levels, frames, generator)
        dropped = float(torch.rand(1, generator=generator)) < settings.caption_dropout
        text = self.clips.empty_text if dropped else clip.text
        noise = clip_noise(shape, generator, shared)
        fps = NOT_TOLD if dropped and settings.fps_guidance else clip.fps or STILL_FPS
        example = Example(clip.latents, noise, timesteps, text, fps, predicted=predicted)
        if settings.frame_noise_levels != "finished_frames":
            return example
        finished = draw_context(settings, levels, frames, generator)
        return replace(example, finished_timesteps=finished, finished_noise=torch.randn(shape, generator=generator))

    def _clip(self, item: int) -> LatentClip:
        """Raises ClipError for one that cannot be read, or that nothing can be learnt from."""
        try:
            clip = self.clips.train[item]
        except ValueError as error:
            raise ClipError(str(error)) from error
        named = f"Item {item + 1} of the clips, with the caption {clip.caption!r:.80},"
        if not (clip.latents.isfinite().all() and clip.text.isfinite().all()):
            raise ClipError(
                f"{named} has values that are not finite numbers. Take it out, or encode it again in 32 bits."
            )
        if not clip.latents.any():
            raise ClipError(
                f"{named} is empty: its latents are all zeros, and nothing can be learnt from them. Take it out, or "
                "encode it again."
            )
        return clip

    def _errors(self, examples: list[Example], kind: StepKind) -> Tensor:
        """Error of each clip, ``b``; as stills, each frame is a clip of its own."""

        def together(name: str) -> Tensor:
            return torch.stack([getattr(example, name) for example in examples]).to(self.accelerator.device)

        clips = NoisyFrames(together("latents").float(), together("noise").float(), together("timesteps"))
        text, fps = together("text").float(), [example.fps for example in examples]
        network: Network | None = self.trainables.network
        if kind == "clips":
            finished = None
            if examples[0].finished_noise is not None:
                finished = replace(clips, noise=together("finished_noise"), timesteps=together("finished_timesteps"))
            teacher = self.teacher if examples[0].predicted else None
            return self.objective.loss(clips, text, tuple(fps), network, finished, teacher)
        frames = clips.latents.shape[1]
        stills = NoisyFrames(
            *(rearrange(x, "b f ... -> (b f) 1 ...") for x in (clips.latents, clips.noise, clips.timesteps))
        )
        fps = tuple(rate for rate in fps for _ in range(frames))
        text = repeat(text, "b n d -> (b f) n d", f=frames)
        errors = self.objective.loss(stills, text, fps, None if kind == "base_stills" else network)
        return reduce(errors, "(b f) -> b", "mean", f=frames)

    def _sum_over_processes(self, total: Tensor) -> None:
        """Sums loss and gradients, as one piece; each process has divided by the clips of all of them."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [parameter.grad for parameter in self.trainables.parameters.values() if parameter.grad is not None]
        flat = torch.cat([rearrange(total, " -> 1"), *(gradient.flatten() for gradient in gradients)])
        summed = self.accelerator.reduce(flat, reduction="sum")
        total.copy_(summed[0])
        for gradient, piece in zip(gradients, summed[1:].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))

    def _asked_to_stop(self) -> bool:
        """All processes stop together when one of them is asked to."""
        asked = self.watcher.stop()
        if self.accelerator.num_processes == 1:
            return asked
        return bool(self.accelerator.reduce(torch.tensor(float(asked), device=self.accelerator.device), "sum") > 0)

    def _look(self) -> None:
        """Validation loss and sample clip, when their time has come."""
        settings, step = self.settings, self.state.step
        if not self.accelerator.is_main_process:
            return
        with self.averages.in_place():
            if is_due(settings.validate_every, step, settings.steps) and self.clips.held_out:
                with self.autocast():
                    progress = partial(self._phase, VALIDATION)
                    values = validation_loss(self.objective, self.clips.held_out, self.trainables.network, progress)
                self.watcher.numbers(step, settings.steps, values)
            if self.sample and is_due(settings.sample_every, step, settings.steps):
                self._phase(SAMPLE, 0, 0)
                with self.autocast():
                    frames = self.sample()
                self.watcher.clip(step, f"step-{step:08}", frames)

    def save(self, final: bool) -> None:
        """Writes the state, and exports.  Raises TrainingError when it cannot be written."""
        if self.accelerator.is_main_process:
            self._write(final)
        self.accelerator.wait_for_everyone()

    def _write(self, final: bool) -> None:
        self._phase(SAVING, 0, 0)
        try:
            self.state.save(self.folder, self.settings.keep)
            with self.averages.in_place():
                self.export(self.state.step, final)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"Step {self.state.step} could not be saved in {self.folder} ({error}). What was saved before is "
                f"intact: {remedy(error)} and resume."
            ) from error


def is_due(every: int, step: int, steps: int) -> bool:
    """Whether a look is to be taken behind a step: every so often, and at the start and the end of a run.

    Never in a run that is shorter than that, where a look would take longer than the steps.
    """
    return 0 < every <= steps and (step in (0, steps) or step % every == 0)


def remedy(error: Exception) -> str:
    """What to do before a file can be written."""
    # The writer of safetensors has no number for it, only the system's words.
    full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
    return "make room there" if full else "put that right"
