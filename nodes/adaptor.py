"""Nodes for adaptors: load, make, save one, and apply it to a model."""

from typing import Any, get_args

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adaptor_unet.checkpoint import trained_fps
from ..adaptor_unet.host.folders import FOLDER, adaptor_names, file_state, load_adaptor, save_adaptor
from ..adaptor_unet.host.hosted import fresh_adaptor
from ..adaptor_unet.host.motion_effect import Motion, Order, bind
from ..adaptor_unet.host.page_words import say_on_node
from ..adaptor_unet.host.sampling_order import MOST_HISTORY_NOISE, SamplingOrder
from ..adaptor_unet.host.versions import schema
from ..adaptor_unet.sites import ATTENTION_AT, AttentionAt
from .inputs import (
    ADAPTORS,
    CATEGORY,
    Adaptor,
    end_percent,
    frames_per_clip,
    of_setting,
    scaling_strength,
    seed,
    start_percent,
)


class LoadAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_LoadAdaptor",
            display_name="Load MagicVideo Adaptor",
            category=ADAPTORS,
            description="Loads a trained video adaptor from the folder models/magicvideo.",
            search_aliases=["motion module", "motion model", "motion", "text to video"],
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
    def fingerprint_inputs(cls, adaptor_name: str | None) -> str:
        return file_state(FOLDER, adaptor_name)

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
        said: dict[str, Any] = {"title": title, "author": author, "trigger_phrase": trigger_words, "license": license}
        path = save_adaptor(adaptor, filename_prefix, {f"modelspec.{k}": v for k, v in said.items() if v})
        told = f"Saved {path.name}"
        say_on_node(told)
        return io.NodeOutput(ui={"text": (told,)})


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
                io.Model.Input("model", tooltip="The Stable Diffusion (1.x, 2.x, XL) model that the adaptor is for."),
                of_setting("frames"),
                of_setting("rank"),
                of_setting("init"),
                seed("Seed of the weights that start at random.", stays=True),
                of_setting("attention_at", optional=True),
            ],
            outputs=[Adaptor.Output(display_name="adaptor", tooltip="Changes nothing until it is trained.")],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, attention_at: AttentionAt = ATTENTION_AT, **settings: object
    ) -> io.NodeOutput:
        return io.NodeOutput(fresh_adaptor(model, attention_at=attention_at, **settings))


class ApplyMagicVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_Apply",
            display_name="Apply MagicVideo",
            category=CATEGORY,
            description="Makes a Stable Diffusion (1.x, 2.x, XL) model treat a batch of latents as the frames of one "
            "clip. With two of these in a row, the motions add up.",
            search_aliases=["motion module", "motion", "animate", "text to video", "video"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Stable Diffusion (1.x, 2.x, XL) model; LoRAs may come before or after."
                ),
                Adaptor.Input("adaptor", tooltip="From Load MagicVideo Adaptor or New MagicVideo Adaptor."),
                scaling_strength(
                    "How much of the motion: 0 leaves the image model exactly as it was, 1 is as trained."
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.1,
                    tooltip="Frame rate the clip is meant for; 0: the one that the adaptor was trained with. Give the "
                    "output fps to Create Video.",
                ),
                frames_per_clip(),
                start_percent("Where in sampling the motion begins to act."),
                end_percent("Where in sampling the motion stops acting."),
                io.Combo.Input(
                    "order",
                    options=list(get_args(Order)),
                    default=Motion.order,
                    optional=True,
                    tooltip="frame by frame: each frame is finished before the next is begun, and the next is made to "
                    "follow it, so that things do not jump. together: all frames at once. auto: as the adaptor was "
                    "trained.",
                ),
                io.Int.Input(
                    "chunk",
                    default=SamplingOrder.chunk,
                    min=1,
                    max=4096,
                    optional=True,
                    tooltip="Frames that are made at once in the order frame by frame. 1 is steadiest; more may take "
                    "less time on a GPU.",
                ),
                io.Float.Input(
                    "later_cfg",
                    default=SamplingOrder.later_cfg,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="Guidance (cfg) of all frames but a clip's first, in the order frame by frame; 0: the "
                    "sampler's. They follow finished frames and need less: lower it where things move too far. At 1 "
                    "the negative prompt is skipped, which takes about half the time.",
                ),
                io.Float.Input(
                    "history_noise",
                    default=SamplingOrder.history_noise,
                    min=0.0,
                    max=MOST_HISTORY_NOISE,
                    step=0.05,
                    optional=True,
                    tooltip="History guidance, in the order frame by frame: the negative side sees finished frames "
                    "under this much noise (sigma), so that guidance also leads to what follows from them. Movement "
                    "gets more even and covers less distance. Try 0.5; 0 is off.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="A copy of the model that makes clips. The model that came in stays as it was."
                ),
                io.Float.Output(display_name="fps", tooltip="The clip's frame rate, for Create Video."),
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, adaptor: ModelPatcher, fps: float, **settings: object) -> io.NodeOutput:
        rate = fps or trained_fps(adaptor.model)
        return io.NodeOutput(bind(model, adaptor, fps=rate, **settings), rate)
