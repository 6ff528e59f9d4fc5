"""A training run inside a graph: what the node was given, what the run goes on from, and what the node gives back."""

import gc
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ..adaptor_unet.checkpoint import fp32_copy, load
from ..adaptor_unet.file_names import why_no_name
from ..adaptor_unet.host.folders import clips_folder as allowed_folder
from ..adaptor_unet.host.folders import training_folders, with_motion_lora_of
from ..adaptor_unet.host.graph_watch import GraphWatch, raise_if_stopped
from ..adaptor_unet.host.hosted import hosted
from ..adaptor_unet.host.page_words import say_on_node
from ..adaptor_unet.host.training_files import (
    HostEncoders,
    encoders_fingerprint,
    guidance_fingerprint,
    lacking,
    model_fingerprint,
)
from ..adaptor_unet.host.training_unet import make_room, training_device
from ..adaptor_unet.temporal_network import content_of_network
from ..adaptor_unet.training.data.cache_files import folder_state, hash_of
from ..adaptor_unet.training.data.latent_clip import TrainingClips
from ..adaptor_unet.training.data.prepare import clips_of_folder
from ..adaptor_unet.training.processes import accelerator
from ..adaptor_unet.training.progress_pictures import loss_plot
from ..adaptor_unet.training.run_lock import run_lock
from ..adaptor_unet.training.settings import RunSettings
from ..adaptor_unet.training.training_error import clear_frames, enough_memory
from ..adaptor_unet.training.watchers import Record, read_records
from ..adaptor_unet.whole_file import content_name
from .graph_runs import last_sample, run_files, save_sample, write_inputs
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
from .plans import AdaptorPlan, MotionLoraPlan, Plan, Teaching, begun_adaptor
from .preview_watch import PreviewWatch, show_clip

logger = logging.getLogger(__name__)

FINISHED = "%s is finished: nothing is trained. Other clips or more steps, for instance, begin another run."


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
        inputs = self._inputs(plan, clips)
        tuning = self.settings.training.base_tuning
        output, known = run_files(training_folders(), self.name, inputs, tuning, self._is_lora)
        if known and is_finished(output, self.settings.training, {}):
            frames = last_sample(output, self.settings.training)
            if frames is not None or not self.settings.training.sample_every:
                logger.info(FINISHED, output.adaptor.name)
                records = read_records(output.folder / "metrics.jsonl")
                return self._made(output), as_image(loss_plot(records)), frames
        clips = clips or self._clips(plan)
        raise_if_stopped()  # before anything of a run is there
        with run_lock(output.folder):
            return self._run(plan, clips, inputs, output, known)

    def _run(
        self,
        plan: Plan,
        clips: TrainingClips,
        inputs: dict[str, Any],
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
        write_inputs(output, inputs)
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
        save_sample(output, self.settings.training, frames)
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
        start = None if self.start is None else fp32_copy(self.start.model)
        adaptor = begun_adaptor(self.model, start, self.settings)
        if self.motion_module is None:
            return AdaptorPlan(adaptor)
        guidance = guidance_fingerprint(self.model)
        base = hash_of(self.model_name, guidance) if guidance else self.model_name
        teaching = Teaching(self.model, self.motion_module, self.prompts, base, self.encoders.fingerprint)
        return AdaptorPlan(adaptor, teaching)

    @cached_property
    def model_name(self) -> str:
        """A name for all of the model that training works with, which takes seconds to find."""
        return model_fingerprint(self.model)

    def _inputs(self, plan: Plan, clips: TrainingClips | None) -> dict[str, Any]:
        """Everything that decides what comes out of the run, as JSON has it."""
        start = content_of_network(self.start.model) if self.start is not None else ""
        made = {"model": self.model_name, "encoders": self.encoders.fingerprint, "start": start}
        # What came over wires is named before it is encoded, which may differ in the last digit.
        made["clips"] = (
            content_name(self.clips.given(self.settings.clips, self.encoders))
            if clips is None
            else f"{clips.train.content}, held out {clips.held_out_content}"
        )
        if self.motion_module is None:
            return json.loads(json.dumps(self.settings.told(motion_module=False) | made))
        made |= {"motion_module_content": plan.identity(self.settings), "prompts": self.prompts}
        named = [self.encoders.beside_words(self.settings.clips.captioned(prompt)) for prompt in self.prompts]
        made |= {"embeddings": named} if any(named) else {}
        return json.loads(json.dumps(self.settings.told(motion_module=True) | made))


def clips_state(clips_folder: Sequence[str | None]) -> str:
    """What tells one state of the folder that a graph asks for from another; empty for none, or none that may be read.

    The host keeps what a node gave for as long as its inputs are the same, and clips come into a folder meanwhile.  Of
    a name that comes over a wire it tells nothing, None, so that the folder is like no other: the node looks again.
    """
    if clips_folder[0] is None:
        return uuid4().hex
    given = clips_folder[0].strip().strip('"')
    try:
        return folder_state(allowed_folder(given)) if given else ""
    except (OSError, ValueError):
        return ""  # why it cannot be read is said when the node runs


def as_image(pixels: Image.Image) -> Tensor:
    """A picture as the host's image wires carry it: 1 h w 3 in 0 to 1."""
    return torch.from_numpy(np.asarray(pixels, dtype=np.float32) / 255)[None]


def encoders_of(model: ModelPatcher, clip: Any, vae: Any) -> HostEncoders:  # noqa: ANN401 - the host's classes
    """The autoencoder and the text encoder that are wired to a node, and a name for their weights.

    Raises ValueError when one of them is none, as from a checkpoint without it.
    """
    if missing := lacking(clip, vae):
        raise ValueError(
            f"Train MagicVideo Adaptor has got no {missing}: the file that is loaded for it holds none. Load one by "
            "itself and connect that."
        )
    return HostEncoders(model, clip, vae, encoders_fingerprint(model, clip, vae))
