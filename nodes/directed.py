"""Frames that read earlier frames' tokens, with the image model's own weights."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.untrained import with_directed_attention
from ..adaptor_unet.host.versions import schema
from .acting import end_percent, frames_per_clip, start_percent, strength
from .wire import UNTRAINED


class DirectedAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_DirectedAttention",
            display_name="Directed Attention",
            category=UNTRAINED,
            description="Makes the frames of a batch look alike with nothing trained: each reads earlier frames too, "
            "with the model's own self-attention. For clips whose structure comes from a source video or a "
            "ControlNet; from text alone, frames stay separate pictures.",
            search_aliases=["cross-frame attention", "consistency", "flicker", "video to video", "reference"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model, before or after Apply MagicVideo."),
                io.Combo.Input(
                    "look_back",
                    options=["first and previous", "first", "last"],
                    default="first and previous",
                    tooltip="Which frames a frame reads beside itself: the first of its clip and the one before it, "
                    "the first alone, or the last_frames before it. More of them cost more time.",
                ),
                io.Int.Input(
                    "last_frames",
                    default=2,
                    min=1,
                    max=4096,
                    tooltip="How many frames before it a frame reads, where look_back is last.",
                ),
                io.Combo.Input(
                    "where",
                    options=["middle and decoder", "all"],
                    default="middle and decoder",
                    tooltip="The blocks of the UNet in which frames look back.",
                ),
                strength(
                    "How much of the attention that looks back goes into the result, the rest being the plain "
                    "one. 0 leaves the model exactly as it was; 1 takes less time than what lies between."
                ),
                start_percent("Where in sampling frames begin to look back."),
                end_percent("Where in sampling frames stop looking back."),
                frames_per_clip(),
            ],
            outputs=[
                io.Model.Output(tooltip="A copy of the model that looks back. The model that came in stays as it was.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        look_back: str,
        last_frames: int,
        where: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        frames_per_clip: int,
    ) -> io.NodeOutput:
        return io.NodeOutput(
            with_directed_attention(
                model, look_back, last_frames, where, strength, start_percent, end_percent, frames_per_clip
            )
        )
