"""Binds an adaptor to a model."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.binding import bind
from ..adaptor_unet.host.versions import schema
from .acting import end_percent, frames_per_clip, start_percent
from .wire import CATEGORY, Adaptor


class ApplyMagicVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_Apply",
            display_name="Apply MagicVideo",
            category=CATEGORY,
            description="Makes a Stable Diffusion 1.5 model treat a batch of latents as the frames of one clip. "
            "Two of these in a row blend their motions.",
            search_aliases=["motion module", "animate", "text to video", "video"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model; LoRAs may come before or after."),
                Adaptor.Input("adaptor", tooltip="From Load MagicVideo Adaptor or New MagicVideo Adaptor."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of the motion: 0 leaves the image model exactly as it was, 1 is as trained.",
                ),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=0.1,
                    max=240.0,
                    step=0.1,
                    tooltip="Frame rate the clip is meant for. Give the same to Create Video.",
                ),
                frames_per_clip(),
                start_percent("Where in sampling the motion begins to act."),
                end_percent("Where in sampling the motion stops acting."),
            ],
            outputs=[
                io.Model.Output(tooltip="A copy of the model that makes clips. The model that came in stays as it was.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        adaptor: ModelPatcher,
        strength: float,
        fps: float,
        frames_per_clip: int,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        return io.NodeOutput(bind(model, adaptor, strength, fps, frames_per_clip, start_percent, end_percent))
