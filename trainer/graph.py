"""A training run inside a graph: where it writes, what it goes on from, and what the node gives back."""

import gc
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ..adaptor_unet.adaptor import VideoAdaptor
from ..adaptor_unet.checkpoint import fp32_copy, load
from ..adaptor_unet.file_names import why_no_name
from ..adaptor_unet.host.base_model import check_fit
from ..adaptor_unet.host.folders import clips_folder as allowed_folder
from ..adaptor_unet.host.folders import training_folders, with_motion_lora_of
from ..adaptor_unet.host.graph_watch import GraphWatch, raise_if_stopped
from ..adaptor_unet.host.hosted import adaptor_for, hosted
from ..adaptor_unet.host.page_words import say_on_node
from ..adaptor_unet.host.training_files import HostEncoders, encoders_fingerprint, model_fingerprint
from ..adaptor_unet.host.training_unet import make_room, training_device
from ..adaptor_unet.training.data.cache_files import contents, folder_state, read_metadata, read_tensor
from ..adaptor_unet.training.data.latent_clip import TrainingClips
from ..adaptor_unet.training.data.prepare import clips_of_folder
from ..adaptor_unet.training.processes import accelerator
from ..adaptor_unet.training.progress_pictures import loss_plot, progress_picture
from ..adaptor_unet.training.run_identity import MAY_CHANGE
from ..adaptor_unet.training.run_lock import run_lock
from ..adaptor_unet.training.settings import SETTING_GROUPS, RunSettings, TrainingSettings
from ..adaptor_unet.training.training_error import clear_frames, enough_memory
from ..adaptor_unet.training.watchers import Record, Watcher, clip_phase, read_records
from ..adaptor_unet.whole_file import content_name, save_tensors, written_whole
from .motion_training import (
    MotionTraining,
    Output,
    RunParts,
    check_able,
    check_base,
    is_finished,
    tell_of_effects,
    written_files,
)
from .node_inputs import WiredClips
from .plans import AdaptorPlan, MotionLoraPlan, Plan, Teaching

logger = logging.getLogger(__name__)

# Where a run's folder says which run it is.
RUN_FILE = "run.json"
# The last sample clip, which a run that is finished gives again: frames ``f h w 3`` in uint8.  Its metadata tell the
# settings by which it was made.
SAMPLE_FILE, MADE_BY = "sample.safetensors", "magicvideo.sample"
FINISHED = "%s is finished: nothing is trained. Other clips or more steps, for instance, begin another run."
OTHER_COSTS = "%s was begun with other settings of memory or looks, which begin no other run."
# Drawing takes a moment, and steps of a small model are quick.
SECONDS_BETWEEN_LOOKS = 5.0


class PreviewWatch(GraphWatch, Watcher):
    """Shows the losses on the node as the run goes, and the last sample clip below them, all frames at once.

    What ``record`` holds is drawn, so it must be told before this watcher is.
    """

    def __init__(self, steps: int, record: Record) -> None:
        super().__init__(steps)
        self.record = record
        self.next_look = 0.0

    def numbers(self, done: int, total: int, values: dict[str, float]) -> None:
        super().numbers(done, total, values)
        if time.monotonic() >= self.next_look:
            self.show()

    def clip(self, done: int, name: str, frames: Tensor) -> None:
        super().clip(done, name, frames)
        self.show()

    def show(self) -> None:
        """Draws losses and sample clip anew."""
        self.preview(progress_picture(self.record.records, self.last_clip))
        self.next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS


@dataclass(frozen=True)
class GraphTraining:
    """A run of the training node: what the node was given, and ``train``.

    ``clips`` is a folder, or what is wired to it, or None where a motion module makes them; ``start`` an adaptor to
    begin from.  ``motion_module`` teaches by clips of the ``prompts``, or a LoRA on it is trained.  Raises ValueError
    for a name that is no plain file name.
    """

    model: ModelPatcher
    encoders: HostEncoders
    clips: Path | WiredClips | None
    settings: RunSettings
    name: str
    start: ModelPatcher | None = None
    motion_module: ModelPatcher | None = None
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = why_no_name(self.name.strip())
        if wrong or self.name.strip().startswith("."):
            raise ValueError(
                "name of Train MagicVideo Adaptor must be a plain file name, such as my motion; found "
                f"{self.name!r:.300}, which {wrong or 'begins with a dot'}."
            )

    def train(self) -> tuple[ModelPatcher, Tensor, Tensor | None]:
        """The adaptor, or the motion module with its MotionLoRA; the loss plot ``1 h w 3``; a sample clip ``f h w 3``.

        With ``sample_every`` 0 there is no sample clip.  The same run queued again goes on where it was stopped; one
        that is finished gives its result at once.  Raises ValueError for what cannot work, and the host's own exception
        when its stop button was pressed.
        """
        with torch.inference_mode(False), torch.enable_grad():
            try:
                return self._trained()
            finally:
                clear_frames(sys.exc_info()[1])  # after an error its functions hold the run
                gc.collect()  # and the parts of a run hold each other
                make_room()

    def _trained(self) -> tuple[ModelPatcher, Tensor, Tensor | None]:
        check_able(self.settings.training)
        check_base(self.model, self.settings.training)
        tell_of_effects(self.model)
        plan = self._plan()  # first, because what does not fit must be refused before clips are encoded
        plan.check(self.settings)
        # What is wired is known before it is encoded; a folder is known from its cache.
        clips = None if isinstance(self.clips, WiredClips) else self._clips(plan)
        run_identity = self._run_identity(plan, clips)
        output, known = run_files(self.name, run_identity, self.settings.training.base_tuning, self._is_lora)
        if known and is_finished(output, self.settings.training, {}):
            frames = last_sample(output, self.settings.training)
            if frames is not None or not self.settings.training.sample_every:
                logger.info(FINISHED, output.adaptor.name)
                records = read_records(output.folder / "metrics.jsonl")
                return self._made(output), as_image(loss_plot(records)), frames
        clips = clips or self._clips(plan)
        raise_if_stopped()  # before anything of a run is there
        with run_lock(output.folder):
            return self._run(plan, clips, run_identity, output, known)

    def _run(
        self,
        plan: Plan,
        clips: TrainingClips,
        run_identity: dict[str, Any],
        output: Output,
        known: bool,
    ) -> tuple[ModelPatcher, Tensor, Tensor | None]:
        settings = self.settings.training
        say_on_node("copying the model")
        make_room()

        def watchers(done: int) -> tuple[Record, PreviewWatch]:
            record = Record(output.folder, done, clips.sample_fps)
            return record, PreviewWatch(settings.steps, record)

        parts = RunParts(
            model=self.model,
            clips=clips,
            settings=settings,
            output=output,
            accelerator=accelerator(cpu=training_device().type == "cpu"),
            watchers=watchers,
            resume=known,
            encoders=lambda: self.encoders,
            used=self.settings.told(motion_module=self.motion_module is not None),
        )
        training = plan.training(parts, self.settings)
        record, preview = training.watchers
        with written_whole(output.folder / RUN_FILE) as partial_file:
            partial_file.write_text(json.dumps(run_identity), encoding="utf-8")
        if training.run.state.step >= settings.steps:
            logger.info(FINISHED, output.adaptor.name)
        else:
            training.train()
            preview.raise_if_stopped()
        if not all(path.exists() for path in written_files(output, settings)):
            training.run.save(final=True)  # of a finished run, taken away since, or not written for want of memory
        frames = self._sample(training, output, record, preview) if settings.sample_every else None
        return self._made(output), as_image(loss_plot(record.records)), frames

    def _sample(self, training: MotionTraining, output: Output, record: Record, preview: PreviewWatch) -> Tensor:
        """The run's last sample clip, ``f h w 3``; made now if it has come to none."""
        frames, step = preview.last_clip, training.run.state.step
        if frames is None:
            loader = "Load Motion LoRA" if self._is_lora else "Load MagicVideo Adaptor"
            kept = f"What was trained is saved as {output.adaptor.name}: {loader} gives it, and so does this node"
            with enough_memory("the sample clip is made", f"{kept} with sample_every = 0 in its settings."):
                frames = training.sample_averaged()
            record.clip(step, f"step-{step:08}", frames)
        sample = {"frames": (frames * 255).round().to(torch.uint8)}
        told = {MADE_BY: sample_settings(self.settings.training)}
        save_tensors(output.folder / SAMPLE_FILE, sample, told | contents(sample))
        return frames

    @property
    def _is_lora(self) -> bool:
        return self.settings.motion_module.train == "motion_lora"

    def _made(self, output: Output) -> ModelPatcher:
        """What the file of a run gives."""
        if self._is_lora:
            return with_motion_lora_of(self.motion_module, output.adaptor, 1.0)
        return hosted(load(output.adaptor))

    def _clips(self, plan: Plan) -> TrainingClips:
        watch, cache = GraphWatch(1), training_folders().cache
        own = None
        if isinstance(self.clips, WiredClips):
            held = self.settings.training.validation_clips
            own = self.clips.encoded(self.settings.clips, held, self.encoders, partial(show_clip, watch))
        elif self.clips is not None:
            own = clips_of_folder(
                self.clips,
                self.settings.clips,
                self.settings.training.validation_clips,
                cache,
                lambda: self.encoders,
                self.encoders.fingerprint,
                partial(show_clip, watch),
            )
        return plan.clips(own, self.settings, cache, lambda: self.encoders, partial(show_clip, watch))

    def _plan(self) -> Plan:
        if self._is_lora:
            return MotionLoraPlan(self.model, self.motion_module)
        adaptor = self._adaptor()
        check_fit(self.model, adaptor.config)
        if self.motion_module is None:
            return AdaptorPlan(adaptor)
        base, encoders = model_fingerprint(self.model), self.encoders.fingerprint
        return AdaptorPlan(adaptor, Teaching(self.model, self.motion_module, self.prompts, base, encoders))

    def _adaptor(self) -> VideoAdaptor:
        if self.start is None:
            return adaptor_for(self.model, **self.settings.adaptor_settings)
        return fp32_copy(self.start.model)

    def _run_identity(self, plan: Plan, clips: TrainingClips | None) -> dict[str, Any]:
        """Everything that decides what comes out of the run."""
        start = content_of_adaptor(self.start.model) if self.start is not None else ""
        made = {"model": model_fingerprint(self.model), "encoders": self.encoders.fingerprint, "start": start}
        # What came over wires is named before it is encoded, which may differ in the last digit.
        made["clips"] = (
            content_name(self.clips.given(self.settings.clips, self.encoders))
            if clips is None
            else f"{clips.train.content}, held out {clips.held_out_content}"
        )
        if self.motion_module is None:
            return json.loads(json.dumps(self.settings.told(motion_module=False) | made))
        made |= {"motion_module_content": plan.identity(self.settings), "prompts": self.prompts}
        return json.loads(json.dumps(self.settings.told(motion_module=True) | made))


def sample_settings(settings: TrainingSettings) -> str:
    """What decides how a sample clip is made of a trained adaptor."""
    return json.dumps({"steps": settings.sample_steps, "cfg": settings.sample_cfg})


def last_sample(output: Output, settings: TrainingSettings) -> Tensor | None:
    """f h w 3: the sample clip that a finished run gave.

    None when it is not there, cannot be read or was made by other settings than these.
    """
    if (read_metadata(output.folder / SAMPLE_FILE) or {}).get(MADE_BY) != sample_settings(settings):
        return None
    try:
        frames = read_tensor(output.folder / SAMPLE_FILE, "frames")
    except ValueError:
        return None
    whole = frames.dtype == torch.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and len(frames)
    return frames.float() / 255 if whole else None


def run_files(name: str, run_identity: dict[str, Any], tuning: str, lora: bool = False) -> tuple[Output, bool]:
    """The files of the run of this identity, and whether it was begun before.

    A new run gets those of the next free number.  ``tuning`` says what is trained of the base, ``lora`` whether a
    MotionLoRA is trained in place of an adaptor.
    """
    folders = training_folders()
    name, number = name.strip(), 1
    while True:
        made = f"{name}_{number:05}"
        folder, trained = folders.runs / made, folders.motion_loras if lora else folders.adaptors
        adaptor = trained / f"{made}.safetensors"
        tuned = folders.checkpoints if tuning == "full" else folders.loras
        output = Output(adaptor, tuned / f"{made}_base.safetensors", folder)
        written = (folder, adaptor, *([output.base] if tuning != "frozen" else []))
        if not any(path.exists() for path in written):
            return output, False
        try:
            begun = with_all_settings(json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
            if what_lasts(begun) == what_lasts(run_identity):
                if begun != run_identity:
                    logger.info(OTHER_COSTS, made)
                return output, True
        except (OSError, ValueError, RecursionError):  # no run of ours, or one that was cut off at its very start
            pass
        number += 1


def with_all_settings(told: Any) -> Any:  # noqa: ANN401 - whatever stands in a file
    """What a run said of itself, with the settings that its version did not have yet: they were as they are by default.

    Anything else is given back as it is.
    """
    if not isinstance(told, dict):
        return told
    groups = {group: kind for group, kind in SETTING_GROUPS.items() if isinstance(told.get(group), dict)}
    return told | {group: json.loads(json.dumps(asdict(kind()))) | told[group] for group, kind in groups.items()}


def what_lasts(told: Any) -> Any:  # noqa: ANN401 - whatever stands in a file
    """What a run said of itself, without the settings that may change; anything else is given back as it is."""
    if not isinstance(told, dict) or not isinstance(told.get("training"), dict):
        return told
    return told | {"training": {name: value for name, value in told["training"].items() if name not in MAY_CHANGE}}


def content_of_adaptor(adaptor: VideoAdaptor) -> str:
    """A name for an adaptor's settings and all of its values."""
    return content_name([(adaptor.config.to_json(), torch.zeros(0)), *sorted(adaptor.state_dict().items())])


def clips_state(clips_folder: Sequence[str | None]) -> str:
    """What tells one state of the folder that a graph asks for from another; empty for none, or none that may be read.

    The host keeps what a node gave for as long as its inputs are the same, and clips come into a folder meanwhile.
    """
    given = (clips_folder[0] or "").strip().strip('"')
    try:
        return folder_state(allowed_folder(given)) if given else ""
    except (OSError, ValueError):
        return ""  # why it cannot be read is said when the node runs


def show_clip(watch: GraphWatch, done: int, total: int, doing: str) -> None:
    """A ``progress`` of ``build_cache``: the node's bar counts the clips.

    Raises the host's own error when its stop button was pressed.
    """
    watch.phase(clip_phase(done, total, doing), 0, 0)
    watch.numbers(done, total, {})
    raise_if_stopped()


def as_image(pixels: Image.Image) -> Tensor:
    """A picture as the host's image wires carry it: 1 h w 3 in 0 to 1."""
    return torch.from_numpy(np.asarray(pixels, dtype=np.float32) / 255)[None]


def encoders_of(model: ModelPatcher, clip: Any, vae: Any) -> HostEncoders:  # noqa: ANN401 - the host's classes
    """The autoencoder and the text encoder that are wired to a node, and a name for their weights."""
    return HostEncoders(model, clip, vae, encoders_fingerprint(model, clip, vae))
