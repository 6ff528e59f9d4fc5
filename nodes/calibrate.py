"""An adaptor computed from a reference clip."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.calibrate import calibrated_adaptor
from ..adaptor_unet.host.versions import schema
from .wire import UNTRAINED, Adaptor, seed


class CalibrateAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_CalibrateAdaptor",
            display_name="Calibrate MagicVideo Adaptor",
            category=UNTRAINED,
            description="Computes an adaptor's S and B from a reference clip, without training: what brings each "
            "frame's channels to the mean and spread of the clip's first frame, as far as it is alike at all noise "
            "levels. Made for sampling that clip anew, or as the start of training.",
            search_aliases=["distribution adaptor", "train motion", "flicker"],
            inputs=[
                io.Model.Input("model", tooltip="The Stable Diffusion 1.5 model that the adaptor is for."),
                io.Latent.Input("latent", tooltip="One clip through VAE Encode; its frames are the adaptor's."),
                io.Conditioning.Input("positive", tooltip="What the clip shows."),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=2,
                    max=1000,
                    tooltip="Noise levels at which the clip goes through the model.",
                ),
                seed("Seed of the noise."),
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
        return io.NodeOutput(calibrated_adaptor(model, latent, positive, steps, seed, adaptor))
