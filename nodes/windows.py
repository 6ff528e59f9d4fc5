"""Long clips, chunk by chunk."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.binding import with_causal_windows
from ..adaptor_unet.host.versions import schema
from .wire import CATEGORY


class CausalWindows(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_CausalWindows",
            display_name="Causal Windows",
            category=CATEGORY,
            description="Samples a long clip a few frames at a time, in memory that does not grow with its length. The "
            "result is that of the whole clip at once, and each chunk gets the ControlNet hints of its own frames.",
            search_aliases=["context windows", "long video", "sliding window", "low memory"],
            inputs=[
                io.Model.Input("model", tooltip="Before or after Apply MagicVideo, as you like."),
                io.Int.Input(
                    "chunk_frames",
                    default=8,
                    min=1,
                    max=4096,
                    tooltip="Frames that go through the model at once. Fewer need less memory and somewhat more "
                    "time; the clip stays the same.",
                ),
                io.Boolean.Input(
                    "offload_past",
                    default=False,
                    tooltip="Keeps what chunks need of the frames before in main memory: less GPU memory, more time.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="A copy of the model that samples in chunks. The model that came in stays as is."
                )
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, chunk_frames: int, offload_past: bool) -> io.NodeOutput:
        return io.NodeOutput(with_causal_windows(model, chunk_frames, offload_past))
