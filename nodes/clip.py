"""Nodes for clips of any length: latents for them, and sampling them in chunks."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.expand_latent import expand_latent
from ..adaptor_unet.host.binding import with_causal_windows
from ..adaptor_unet.host.causal_windows import CausalWindows as Windows
from ..adaptor_unet.host.versions import schema
from .inputs import CATEGORY


class ExpandLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_ExpandLatent",
            display_name="Expand Latent to Clip",
            category=CATEGORY,
            description="Lengthens each still or clip of a latent batch to a number of frames by repeating its last, "
            "clip after clip, with noise of its own for every frame; or goes back and forth, for a loop.",
            search_aliases=["repeat latent", "image to video", "extend video", "loop", "ping-pong", "boomerang"],
            inputs=[
                io.Latent.Input("latent", tooltip="One or more stills or clips of equal length, one after the other."),
                io.Int.Input("frames", default=16, min=1, max=4096, tooltip="Frames that each clip is to have."),
                io.Int.Input(
                    "frames_per_clip",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="Frames that each clip has now: 1 for stills.",
                ),
                io.Boolean.Input(
                    "keep_given",
                    default=False,
                    optional=True,
                    tooltip="The sampler leaves the given frames as they are and makes the new ones after them. "
                    "Takes the place of a noise mask.",
                ),
                io.Boolean.Input(
                    "ping_pong",
                    default=False,
                    optional=True,
                    tooltip="The new frames are the given ones backwards, then forwards and so on, in place of the "
                    "last. 9 frames become a loop of 16: frames = 2 x 9 - 2.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    tooltip="Clip after clip. Set frames_per_clip of Apply MagicVideo if there are several."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        latent: io.Latent.Type,
        frames: int,
        frames_per_clip: int,
        keep_given: bool = False,
        ping_pong: bool = False,
    ) -> io.NodeOutput:
        return io.NodeOutput(expand_latent(latent, frames, frames_per_clip, keep_given, ping_pong))


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
                    default=Windows.chunk_frames,
                    min=1,
                    max=4096,
                    tooltip="Frames that go through the model at once. Fewer need less memory and somewhat more "
                    "time; the clip stays the same.",
                ),
                io.Boolean.Input(
                    "offload_past",
                    default=False,
                    tooltip="Keeps the KV cache, what chunks need of the frames before, in main memory: less GPU "
                    "memory, more time.",
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
