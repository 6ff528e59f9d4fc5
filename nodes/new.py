"""A fresh adaptor."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.fresh import fresh_adaptor
from ..adaptor_unet.host.versions import schema
from .wire import ADAPTORS, Adaptor, seed


class NewAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_NewAdaptor",
            display_name="New MagicVideo Adaptor",
            category=ADAPTORS,
            description="Makes an untrained video adaptor for a model. It changes nothing until it is trained.",
            search_aliases=["motion module", "train motion"],
            inputs=[
                io.Model.Input("model", tooltip="The Stable Diffusion 1.5 model that the adaptor is for."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=1024,
                    tooltip="Length of a training clip. Longer clips can still be made with the adaptor.",
                ),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=1280,
                    tooltip="Rank of the temporal attention's weights: 0 for full; 64 makes a much smaller file.",
                ),
                io.Combo.Input(
                    "init",
                    options=["spatial", "random"],
                    default="spatial",
                    tooltip="Temporal attention starts from the model's own self-attention, or at random.",
                ),
                seed("Seed of the weights that start at random."),
            ],
            outputs=[Adaptor.Output(display_name="adaptor", tooltip="Changes nothing until it is trained.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, frames: int, rank: int, init: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(fresh_adaptor(model, frames, rank, init, seed))
