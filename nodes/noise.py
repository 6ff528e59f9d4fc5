"""Noise that the frames of a clip share in part."""

from comfy_api.latest import io

from ..adaptor_unet.host.noise import FrameNoise as Noise
from ..adaptor_unet.host.versions import schema
from .acting import frames_per_clip
from .wire import UNTRAINED, seed


class FrameNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_FrameNoise",
            display_name="Frame Noise",
            category=UNTRAINED,
            description="Noise for Sampler Custom Advanced that the frames of a clip share in part, so that what the "
            "sampler makes of it differs less from frame to frame.",
            search_aliases=["random noise", "shared noise", "mixed noise", "progressive noise", "consistency"],
            inputs=[
                seed("The first frame's noise is that of Random Noise with this seed.", "noise_seed"),
                io.Float.Input(
                    "share",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of a frame's noise, as a share of its variance, is another frame's: 0 is the "
                    "noise of Random Noise, 1 the same for all frames.",
                ),
                io.Combo.Input(
                    "kind",
                    options=["mixed", "progressive"],
                    default="progressive",
                    tooltip="Whose noise is shared. mixed: the first frame's, by all alike. progressive: the frame "
                    "before's, so that frames far apart have little in common.",
                ),
                frames_per_clip(),
            ],
            outputs=[io.Noise.Output(tooltip="For Sampler Custom Advanced, or for Add Noise.")],
        )

    @classmethod
    def execute(cls, noise_seed: int, share: float, kind: str, frames_per_clip: int) -> io.NodeOutput:
        return io.NodeOutput(Noise(noise_seed, share, kind, frames_per_clip))
