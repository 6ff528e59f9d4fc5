"""The training loop, on one process or, with Hugging Face Accelerate, on many.

Axes: b clips, f frames of a clip, c h w of a latent, n tokens, d text channels.
"""

import errno
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, reduce, repeat
from safetensors import SafetensorError
from torch import Tensor

from ..temporal_network import Network
from ..whole_file import OutputError
from .data.data_settings import LATENT_PIXELS
from .data.latent_clip import TrainingClips
from .estimate import Work, pass_time
from .examples import Example, Examples
from .objective import Denoiser, NoisyFrames, Objective, Teacher
from .processes import add_up, check_processes, is_true_anywhere
from .run_identity import identity_of
from .run_state import RunState, go_on
from .settings import MotionModuleSettings, TrainingSettings
from .step_plan import Sees, StepPlan, plan_step
from .trainables import MovingAverage, Trained, set_rates
from .training_error import (
    MAY_BE_MEMORY,
    ClipError,
    OtherProcessError,
    OutOfMemoryError,
    TrainingError,
    clear_frames,
    free_memory,
    is_out_of_memory,
    lower,
)
from .validation import validation_loss
from .watchers import SAMPLE, SAVING, TIMING, TRAINING, VALIDATION, Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TrainingRun:
    """One run, on one process of perhaps several, computing in ``dtype``.

    ``export(step, final)`` writes the files that a user keeps, ``sample`` renders a clip ``f h w 3``; both are called
    while the averaged weights stand in the modules.  ``run_identity``: what else a resumed run must share with the one
    before.  ``teacher``: whose predictions are learnt on the clips that it has sampled, by ``shares`` of them.  Raises
    ValueError when the settings do not fit the processes.
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
    teacher: Teacher | None = None
    shares: MotionModuleSettings = MotionModuleSettings()

    def __post_init__(self) -> None:
        settings = self.settings
        check_processes(settings, self.accelerator.num_processes)
        self.objective = Objective(self.denoiser, settings)
        self.examples = Examples(
            self.clips, settings, self.shares, len(self.denoiser.sigmas), self.trainables.shared_noise
        )
        self.rate = self.trainables.rate(self.clips.clip_count)  # the highest one
        self.optimiser = self.trainables.optimiser(self.rate)
        self.averages = MovingAverage(self.trainables.parameters, settings.ema, settings.offload_averages)
        run_identity = identity_of(settings, self.trainables.identity, self.clips, self.shares) | self.run_identity
        self.state = RunState(self.trainables.parameters, self.averages, self.optimiser, run_identity)
        self.doing, self.whole = "", True  # what the run does now; False while a step changes its tensors
        self.all_know = False  # whether all processes end by what one of them cannot do

    def resume(self) -> bool:
        """Goes on from the last sound state in the run's folder, if there is one."""
        return go_on(self.state, self.folder)

    def train(self) -> bool:
        """Trains to the last step; False when a watcher stopped it before.  Either way all is saved.

        Raises OutOfMemoryError when memory is too short, ClipError when a clip cannot be read any more, and
        TrainingError when numbers or sample clips cannot be written; after what was learnt until then is saved.  When
        it happens on another process, OtherProcessError.
        """
        try:
            finished = self._all_steps()
        except self.watcher.stop_errors as error:
            # In the middle of a step too: its tensors are changed only once all of it is computed.
            self.watcher.stopped(error)
            finished = False
        except (ClipError, OtherProcessError) as error:
            raise type(error)(f"{error} {self._kept()}") from error
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
        kept = "What was saved before is intact."
        if self.whole and self.accelerator.is_main_process:
            try:
                self._write(final=False)
                kept = f"What was learnt in {self.state.step} steps is saved."
            except MAY_BE_MEMORY:  # TrainingError is one of them
                self.whole = False
        if self.all_know:
            if not self.accelerator.is_main_process:
                kept = "The first process saves what was learnt."
            self.accelerator.wait_for_everyone()  # a launcher ends all when one has ended
        return kept

    def _all_steps(self) -> bool:
        """All steps that are left and the looks at them; False when a watcher asked to stop between two."""
        if self.accelerator.is_main_process:
            self._foretell()
        if self.state.step == 0:
            self._look()
        while self.state.step < self.settings.steps:
            if is_true_anywhere(self.accelerator, self.watcher.stop()):  # all processes stop together
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
        work = Work(
            settings=settings,
            frames=len(clip.latents),
            held_out=len(self.clips.held_out),
            steps=settings.steps - done,
            clips=math.ceil(settings.batch / self.accelerator.num_processes),
            validations=validations,
            samples=samples,
            predicted=self._predicted(),
        )
        self.watcher.note(work.told(took, tuple(clip.latents.shape[-2:])))

    def _predicted(self) -> float:
        """Share of the clips of a step that are learnt towards the teacher's prediction."""
        if not self.clips.taught:
            return 0.0
        return self.shares.predicted(alone=len(self.clips.train.groups) == 1)

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
        try:
            total = self._backward(plan)
            add_up(self.accelerator, total, self.trainables.parameters.values())
            norm = torch.nn.utils.clip_grad_norm_(self.trainables.parameters.values(), self.settings.clip_norm)
            if not (math.isfinite(total) and math.isfinite(norm)):
                raise TrainingError(
                    f"The loss of step {step + 1} is {float(total)} and its gradient {float(norm)}, which are no "
                    "finite numbers. What was saved last is sound. Take a lower learning_rate, or precision fp32: "
                    "bin/train --resume then goes on from it; in a graph a new run begins, to which the adaptor that "
                    "was saved last can be connected."
                )
            self.whole = False
            self.optimiser.step()
        finally:
            self.optimiser.zero_grad(set_to_none=True)  # looks and saves need the room
        self.averages.update(step)
        self.whole = True
        return {"loss": float(total), "gradient": float(norm), "rate": self.optimiser.param_groups[0]["lr"]}

    def _backward(self, plan: StepPlan) -> Tensor:
        """The part of a step's loss that is this process's, and its gradients.

        When a clip cannot be read or memory is too short on one process, all of them raise an error.
        """
        total, failure = torch.zeros((), device=self.accelerator.device), None
        try:
            mine = plan.batch[self.accelerator.process_index :: self.accelerator.num_processes]
            for examples in self.examples.of(mine):
                with self.autocast():
                    loss = self._errors(examples, plan.sees).sum() / len(plan.batch)
                loss.backward()
                total += loss.detach()
        except MAY_BE_MEMORY as error:  # ClipError is one of them
            if not (isinstance(error, ClipError) or is_out_of_memory(error)):
                raise
            failure = error
            clear_frames(error)  # the others are told next, which needs a little memory too
        if is_true_anywhere(self.accelerator, failure is not None):
            self.all_know = True
            raise failure or OtherProcessError("Another process could not go on, and says why itself.")
        return total

    def _errors(self, examples: list[Example], sees: Sees) -> Tensor:
        """Error of each clip, ``b``; as stills, each frame is a clip of its own."""

        def together(name: str) -> Tensor:
            tensors = [getattr(example, name) for example in examples]
            with torch.autocast(self.accelerator.device.type, enabled=False):  # a processor's refuses to stack fp16
                return torch.stack(tensors).to(self.accelerator.device)

        clips = NoisyFrames(together("latents").float(), together("noise").float(), together("timesteps"))
        text, fps = together("text").float(), [example.fps for example in examples]
        network: Network | None = self.trainables.network
        if sees == "clips":
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
        errors = self.objective.loss(stills, text, fps, None if sees == "base_stills" else network)
        return reduce(errors, "(b f) -> b", "mean", f=frames)

    def _look(self) -> None:
        """Validation loss and sample clip, when their time has come."""
        settings, step = self.settings, self.state.step
        validates = self.clips.held_out and is_due(settings.validate_every, step, settings.steps)
        samples = self.sample is not None and is_due(settings.sample_every, step, settings.steps)
        if not self.accelerator.is_main_process or not (validates or samples):
            return
        with self.averages.in_place():  # which copies all that is trained
            if validates:
                with self.autocast():
                    progress = partial(self._phase, VALIDATION)
                    values = validation_loss(self.objective, self.clips.held_out, self.trainables.network, progress)
                self.watcher.numbers(step, settings.steps, values)
            if samples:
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
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return "make room there" if full else "put that right"
