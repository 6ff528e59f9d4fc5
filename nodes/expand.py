"""Stills and short clips to latents of whole clips."""

from comfy_api.latest import io

from ..adaptor_unet.expand_latent import expand_latent
from ..adaptor_unet.host.versions import schema
from .wire import CATEGORY


class ExpandLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_ExpandLatent",
            display_name="Expand Latent to Clip",
            category=CATEGORY,
            description="Lengthens each still or clip of a latent batch to a number of frames by repeating its last, "
            "clip after clip, with noise of its own for every frame.",
            search_aliases=["repeat latent", "image to video", "extend video"],
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
            ],
            outputs=[
                io.Latent.Output(
                    tooltip="Clip after clip. Set frames_per_clip of Apply MagicVideo if there are several."
                )
            ],
        )

    @classmethod
    def execute(
        cls, latent: io.Latent.Type, frames: int, frames_per_clip: int, keep_given: bool = False
    ) -> io.NodeOutput:
        return io.NodeOutput(expand_latent(latent, frames, frames_per_clip, keep_given))
