"""The distribution adaptor, computed while the model samples."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.untrained import with_aligned_frames
from ..adaptor_unet.host.versions import schema
from .acting import end_percent, frames_per_clip, start_percent, strength
from .wire import UNTRAINED


class AlignFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_AlignFrames",
            display_name="Align Frames",
            category=UNTRAINED,
            description="Keeps tone and colours of a clip together with nothing trained: each frame's channels get the "
            "mean and spread of the first frame's.",
            search_aliases=["adain", "color match", "consistency", "flicker", "video to video"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model, before or after Apply MagicVideo."),
                io.Combo.Input(
                    "at",
                    options=["latent", "features"],
                    default="latent",
                    tooltip="latent: on the clean latents that the model predicts at each step. features: at every "
                    "place of the UNet where an adaptor acts, which is stronger and wants the same noise for all "
                    "frames (Frame Noise).",
                ),
                strength(
                    "How far each frame goes towards the first frame's mean and spread: 0 leaves the model "
                    "exactly as it was."
                ),
                start_percent("Where in sampling frames begin to be aligned."),
                end_percent("Where in sampling frames stop being aligned."),
                frames_per_clip(),
            ],
            outputs=[
                io.Model.Output(tooltip="A copy of the model that aligns. The model that came in stays as it was.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        at: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        frames_per_clip: int,
    ) -> io.NodeOutput:
        return io.NodeOutput(with_aligned_frames(model, at, strength, start_percent, end_percent, frames_per_clip))
