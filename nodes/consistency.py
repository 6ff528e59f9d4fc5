"""Nodes that make frames steadier with nothing trained."""

from typing import get_args

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.cross_frame_attention import LookBack, Rule
from ..adaptor_unet.frame_noise import NoiseKind
from ..adaptor_unet.host.adain_effect import Adain, At
from ..adaptor_unet.host.binding import with_effect
from ..adaptor_unet.host.calibrate import FEWEST_LEVELS, LEVELS, calibrated_adaptor
from ..adaptor_unet.host.cross_frame_effect import UNET_SIDES
from ..adaptor_unet.host.cross_frame_effect import CrossFrameAttention as Attention
from ..adaptor_unet.host.noise import FrameNoise as Noise
from ..adaptor_unet.host.versions import schema
from .inputs import UNTRAINED, Adaptor, end_percent, frames_per_clip, seed, start_percent, strength


class CrossFrameAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_DirectedAttention",  # the id in saved graphs
            display_name="Cross-Frame Attention",
            category=UNTRAINED,
            description="Makes the frames of a batch look alike with nothing trained, by cross-frame attention: each "
            "reads earlier frames too, with the model's own self-attention. For clips whose structure comes from a "
            "source video or a ControlNet; from text alone, frames stay separate pictures.",
            search_aliases=[
                "directed attention",
                "consistency",
                "consistent",
                "flicker",
                "video to video",
                "reference",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Stable Diffusion (1.x, 2.x, XL) model, before or after Apply MagicVideo."
                ),
                io.Combo.Input(
                    "look_back",
                    options=list(get_args(Rule)),
                    default=LookBack.rule,
                    tooltip="Which frames a frame reads beside itself: the first of its clip and the one before it, "
                    "the first alone, or the last_frames before it. More of them cost more time.",
                ),
                io.Int.Input(
                    "last_frames",
                    default=LookBack.last,
                    min=1,
                    max=4096,
                    tooltip="How many frames before it a frame reads, where look_back is last.",
                ),
                io.Combo.Input(
                    "where",
                    options=list(UNET_SIDES),
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
    def execute(cls, model: ModelPatcher, **settings: object) -> io.NodeOutput:
        return io.NodeOutput(with_effect(model, Attention.of(model, **settings)))


class FrameAdain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_AlignFrames",  # the id in saved graphs
            display_name="Frame AdaIN",
            category=UNTRAINED,
            description="Keeps tone and colours of a clip together with nothing trained, by AdaIN: each frame's "
            "channels get the mean and standard deviation of the first frame's.",
            search_aliases=["align frames", "color match", "consistency", "consistent", "flicker", "video to video"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Stable Diffusion (1.x, 2.x, XL) model, before or after Apply MagicVideo."
                ),
                io.Combo.Input(
                    "at",
                    options=list(get_args(At)),
                    default=Adain.at,
                    tooltip="latent: on the clean latents that the model predicts at each step. features: at every "
                    "place of the UNet where an adaptor acts, which is stronger and wants the same noise for all "
                    "frames (Frame Noise).",
                ),
                strength(
                    "How far each frame goes towards the first frame's mean and standard deviation: 0 leaves the "
                    "model exactly as it was."
                ),
                start_percent("Where in sampling AdaIN begins to act."),
                end_percent("Where in sampling AdaIN stops acting."),
                frames_per_clip(),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="A copy of the model with AdaIN over frames. The model that came in stays as it was."
                )
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, **settings: object) -> io.NodeOutput:
        return io.NodeOutput(with_effect(model, Adain.of(model, **settings)))


class CalibrateAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_CalibrateAdaptor",
            display_name="Calibrate MagicVideo Adaptor",
            category=UNTRAINED,
            description="Computes an adaptor's S and B from a reference clip, without training: what AdaIN needs to "
            "bring each frame's channels to the mean and standard deviation of the clip's first frame, as far as that "
            "is the same at all noise levels. Use it to redraw that clip, or as the start of a training.",
            search_aliases=["distribution adaptor", "train motion", "flicker"],
            inputs=[
                io.Model.Input("model", tooltip="The Stable Diffusion (1.x, 2.x, XL) model that the adaptor is for."),
                io.Latent.Input("latent", tooltip="One clip through VAE Encode; its frames are the adaptor's."),
                io.Conditioning.Input("positive", tooltip="What the clip shows."),
                io.Int.Input(
                    "steps",
                    default=LEVELS,
                    min=FEWEST_LEVELS,
                    max=1000,
                    tooltip="Noise levels at which the clip goes through the model.",
                ),
                seed("Seed of the noise.", stays=True),
                Adaptor.Input(
                    "adaptor",
                    optional=True,
                    tooltip="An adaptor to take all but S and B from; else the new one has S and B alone.",
                ),
            ],
            outputs=[Adaptor.Output(display_name="adaptor", tooltip="For Apply, Save or Train MagicVideo Adaptor.")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        latent: io.Latent.Type,
        positive: list,
        steps: int,
        seed: int,
        adaptor: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(calibrated_adaptor(model, latent, positive, steps=steps, seed=seed, adaptor=adaptor))


class FrameNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_FrameNoise",
            display_name="Frame Noise",
            category=UNTRAINED,
            description="Noise for Sampler Custom Advanced that the frames of a clip share in part, so that what the "
            "sampler makes of it differs less from frame to frame.",
            search_aliases=[
                "random noise",
                "shared noise",
                "mixed noise",
                "progressive noise",
                "consistency",
                "consistent",
            ],
            inputs=[
                seed("The first frame's noise is that of Random Noise with this seed.", "noise_seed"),
                io.Float.Input(
                    "share",
                    default=Noise.share,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of a frame's noise, as a share of its variance, is another frame's: 0 is the "
                    "noise of Random Noise, 1 the same for all frames.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(get_args(NoiseKind)),
                    default=Noise.kind,
                    tooltip="Whose noise is shared. mixed: the first frame's, by all alike. progressive: the frame "
                    "before's, so that frames far apart have little in common.",
                ),
                frames_per_clip(),
            ],
            outputs=[io.Noise.Output(tooltip="For Sampler Custom Advanced, or for Add Noise.")],
        )

    @classmethod
    def execute(cls, noise_seed: int, share: float, kind: str, frames_per_clip: int) -> io.NodeOutput:
        return io.NodeOutput(Noise(seed=noise_seed, share=share, kind=kind, frames_per_clip=frames_per_clip))
