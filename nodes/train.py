"""Trains a video adaptor."""

from typing import Any

from comfy_api.latest import io

from ..adaptor_unet.host.versions import schema
from .inputs import ADAPTORS, Adaptor
from .training.graph import GraphTraining, encoders_of
from .training.request import clips_asked_for, options_asked_for


class TrainAdaptor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MagicVideo_Train",
            display_name="Train MagicVideo Adaptor",
            category=ADAPTORS,
            description="Trains a motion on clips: a folder of them, or images, videos or latents from other nodes. "
            "Stopped and queued again with the same inputs, it goes on where it was. The adaptor is also saved in "
            "models/magicvideo under its name.",
            search_aliases=["train motion", "motion module", "fine-tune video", "motion lora"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The Stable Diffusion 1.5 model to train for. It is not changed."),
                io.Clip.Input("clip", tooltip="Its text encoder, for the captions."),
                io.Vae.Input("vae", tooltip="Its autoencoder, for the frames and for sample clips."),
                io.String.Input(
                    "name",
                    default="my_motion",
                    tooltip="File name of the adaptor in models/magicvideo, without number.",
                ),
                io.String.Input(
                    "clips_folder",
                    default="",
                    tooltip="Folder of clips on the machine that runs ComfyUI: video files, gif, webp, or folders of "
                    "images. A caption stands in a .txt file of the same name, or in caption.txt. Leave empty to use "
                    "images, videos or latents.",
                ),
                io.Int.Input("steps", default=500, min=1, max=10_000_000, tooltip="Training steps, of one clip each."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=1024,
                    tooltip="Frames of a training clip. Longer clips can still be made with the adaptor.",
                ),
                io.Int.Input("width", default=512, min=64, max=4096, step=8, tooltip="Width of the training frames."),
                io.Int.Input("height", default=512, min=64, max=4096, step=8, tooltip="Height of the training frames."),
                io.Float.Input(
                    "learning_rate",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    tooltip="0 chooses: 1e-4, or 3e-5 for fewer than four clips, which are learnt by heart too soon.",
                ),
                io.Combo.Input(
                    "base_tuning",
                    options=["frozen", "lora", "full"],
                    default="frozen",
                    tooltip="frozen: the adaptor alone, which then fits every SD1.5 model. lora: a LoRA on it is "
                    "trained along and saved in models/loras. full: the whole model, saved in models/checkpoints.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Seed of everything that chance decides. The same inputs give the same adaptor.",
                ),
                io.Float.Input(
                    "fps", default=8.0, min=0.1, max=240.0, step=0.1, tooltip="Frame rate of images and latents."
                ),
                Adaptor.Input("adaptor", optional=True, tooltip="An adaptor to go on training; else a new one."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Clips instead of a folder: each batch is the frames of one. A list gives several.",
                ),
                io.Video.Input("videos", optional=True, tooltip="Clips instead of a folder: one or a list."),
                io.Latent.Input(
                    "latents", optional=True, tooltip="Clips instead of a folder, encoded already: a batch is one clip."
                ),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="What is to be seen in images, videos or latents: one for all, or one for each.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="Captions, encoded already: one for all, or one for each.",
                ),
                io.String.Input(
                    "settings",
                    optional=True,
                    multiline=True,
                    default="",
                    tooltip="All other settings, a line each, such as: rank = 64. The training guide lists them.",
                ),
            ],
            outputs=[
                Adaptor.Output(display_name="adaptor", tooltip="The trained adaptor, for Apply MagicVideo."),
                io.Image.Output(display_name="loss_plot", tooltip="Loss over the steps."),
                io.Image.Output(display_name="sample", tooltip="Frames of a sample clip."),
            ],
        )

    @classmethod
    def execute(cls, model: list, clip: list, vae: list, name: list[str], **wired: list[Any]) -> io.NodeOutput:
        clips, options = clips_asked_for(wired), options_asked_for(wired)
        encoders, start = encoders_of(model[0], clip[0], vae[0]), (wired.get("adaptor") or [None])[0]
        return io.NodeOutput(*GraphTraining(model[0], encoders, clips, options, name[0], start).run())
