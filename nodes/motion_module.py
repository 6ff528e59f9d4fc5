"""Nodes for public motion modules: load one, add a MotionLoRA to it, and apply it to a model."""

import logging
from typing import get_args

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.binding import with_effect
from ..adaptor_unet.host.folders import (
    MOTION_LORAS,
    file_state,
    motion_lora_names,
    motion_module_from,
    motion_module_names,
    with_motion_lora_from,
)
from ..adaptor_unet.host.folders import MOTION_MODULES as MODULE_FILES
from ..adaptor_unet.host.motion_module_effect import GroupNorms, MotionModuleEffect
from ..adaptor_unet.host.noise_schedule import Schedule
from ..adaptor_unet.host.page_words import say_on_node
from ..adaptor_unet.host.versions import schema
from .inputs import MOTION_MODULES, MotionModule, end_percent, frames_per_clip, scaling_strength, start_percent

logger = logging.getLogger(__name__)


class LoadMotionModule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_LoadMotionModule",
            display_name="Load Motion Module",
            category=MOTION_MODULES,
            description="Loads a public motion module for Stable Diffusion 1.5, AnimateDiff v1, v2 or v3, Lightning or "
            "AnimateLCM, and says which it is.",
            search_aliases=[
                "animatediff",
                "motion model",
                "animate",
                "text to video",
                "animatelcm",
                "load animatediff",
            ],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "module_name",
                    options=motion_module_names(),
                    tooltip="A file in models/animatediff_models or models/magicvideo_motion_modules. Press R in the "
                    "graph after adding one.",
                ),
            ],
            outputs=[MotionModule.Output(display_name="motion_module", tooltip="Goes into Apply Motion Module.")],
        )

    @classmethod
    def fingerprint_inputs(cls, module_name: str | None) -> str:
        return file_state(MODULE_FILES, module_name)

    @classmethod
    def execute(cls, module_name: str) -> io.NodeOutput:
        module = motion_module_from(module_name)
        told = f"{module_name}: {module.model.config.summary}"
        logger.info("%s", told)
        say_on_node(told)
        return io.NodeOutput(module, ui={"text": (told,)})


class LoadMotionLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_LoadMotionLoRA",
            display_name="Load Motion LoRA",
            category=MOTION_MODULES,
            description="Adds a MotionLoRA, such as one for a movement of the camera, to a motion module. Several in a "
            "row add up.",
            search_aliases=["animatediff lora", "camera motion", "pan", "zoom", "tilt", "roll"],
            inputs=[
                MotionModule.Input("motion_module", tooltip="From Load Motion Module; most MotionLoRAs are for v2."),
                io.Combo.Input(
                    "lora_name",
                    options=motion_lora_names(),
                    tooltip="A file in models/animatediff_motion_lora or models/magicvideo_motion_loras. Press R in "
                    "the graph after adding one.",
                ),
                scaling_strength("How much of it: 0 none, 1 as trained, below 0 the other way round."),
            ],
            outputs=[
                MotionModule.Output(
                    display_name="motion_module",
                    tooltip="A copy with the MotionLoRA. The motion module that came in stays as it was.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None, **_: object) -> str:
        return file_state(MOTION_LORAS, lora_name)

    @classmethod
    def execute(cls, motion_module: ModelPatcher, lora_name: str, strength: float) -> io.NodeOutput:
        return io.NodeOutput(with_motion_lora_from(motion_module, lora_name, strength))


class ApplyMotionModule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_ApplyMotionModule",
            display_name="Apply Motion Module",
            category=MOTION_MODULES,
            description="Makes a Stable Diffusion 1.5 model treat a batch of latents as the frames of one clip, with a "
            "public motion module: all frames see each other, 16 at a time as in its training.",
            search_aliases=["animatediff", "use evolved sampling", "animate", "text to video", "video"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model; LoRAs may come before or after."),
                MotionModule.Input("motion_module", tooltip="From Load Motion Module or Load Motion LoRA."),
                scaling_strength(
                    "How much of the motion: 0 leaves the image model exactly as it was, 1 is as trained."
                ),
                io.Combo.Input(
                    "noise_schedule",
                    options=list(get_args(Schedule)),
                    default="auto",
                    tooltip="The noise levels that the model is sampled at. auto: those that the motion module was "
                    "trained with. Another schedule makes pictures pale or too strong in contrast.",
                ),
                io.Combo.Input(
                    "group_norm",
                    options=list(get_args(GroupNorms)),
                    default="auto",
                    tooltip="How the image model's residual blocks are normalised. auto: over all frames together "
                    "for v1, frame by frame for all others, as in their training.",
                ),
                io.Float.Input(
                    "key_scale",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Multiplies the keys of the attention over frames: above 1 each frame looks at fewer "
                    "others, below 1 more evenly at all of them.",
                ),
                frames_per_clip(),
                start_percent("Where in sampling the motion module begins to act."),
                end_percent("Where in sampling the motion module stops acting."),
            ],
            outputs=[
                io.Model.Output(tooltip="A copy of the model that makes clips. The model that came in stays as it was.")
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, **settings: object) -> io.NodeOutput:
        return io.NodeOutput(with_effect(model, MotionModuleEffect.of(model, **settings)))
