"""Adaptors from and to files."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.host.folders import adaptor_names, load_adaptor, save_adaptor
from ..adaptor_unet.host.versions import schema
from .wire import ADAPTORS, Adaptor


class LoadAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_LoadAdaptor",
            display_name="Load MagicVideo Adaptor",
            category=ADAPTORS,
            description="Loads a trained video adaptor from the folder models/magicvideo.",
            search_aliases=["motion module", "motion model", "animate", "text to video"],
            inputs=[
                io.Combo.Input(
                    "adaptor_name",
                    options=adaptor_names(),
                    tooltip="A file in models/magicvideo. Press R in the graph after adding one.",
                ),
            ],
            outputs=[Adaptor.Output(display_name="adaptor", tooltip="Goes into Apply MagicVideo.")],
        )

    @classmethod
    def execute(cls, adaptor_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_adaptor(adaptor_name))


class SaveAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_SaveAdaptor",
            display_name="Save MagicVideo Adaptor",
            category=ADAPTORS,
            description="Saves a video adaptor into models/magicvideo. Never overwrites: the number goes up.",
            search_aliases=["export motion", "save motion module"],
            is_output_node=True,
            inputs=[
                Adaptor.Input("adaptor", tooltip="The adaptor to save."),
                io.String.Input(
                    "filename_prefix",
                    default="adaptor",
                    tooltip="Name of the file before its number; may begin with a folder, as in my/motion.",
                ),
                io.String.Input("title", default="", tooltip="Title, stored in the file for model browsers."),
                io.String.Input("author", default="", tooltip="Who made it, stored in the file."),
                io.String.Input(
                    "trigger_words",
                    default="",
                    tooltip="Words that a prompt should hold to get the motion, stored in the file.",
                ),
                io.String.Input(
                    "license", default="", tooltip="Under which terms others may use it, stored in the file."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, adaptor: ModelPatcher, filename_prefix: str, title: str, author: str, trigger_words: str, license: str
    ) -> io.NodeOutput:
        told: dict[str, Any] = {"title": title, "author": author, "trigger_phrase": trigger_words, "license": license}
        path = save_adaptor(adaptor, filename_prefix, {f"modelspec.{k}": v for k, v in told.items() if v})
        return io.NodeOutput(ui={"text": (f"Saved {path.name}",)})
