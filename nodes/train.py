"""Trains a video adaptor."""

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..adaptor_unet.host.versions import not_given, schema
from ..trainer.graph import GraphTraining, clips_state, encoders_of
from ..trainer.node_inputs import clips_asked_for, module_asked_for, settings_asked_for
from .inputs import ADAPTORS, Adaptor, MotionModule, of_setting

NO_ADAPTOR = "Train MagicVideo Adaptor has trained a MotionLoRA and no adaptor: use its output motion_module."
NO_MODULE = "Train MagicVideo Adaptor has trained an adaptor and no MotionLoRA: use its output adaptor."
NO_SAMPLE = (
    "Train MagicVideo Adaptor has made no sample clip, because sample_every is 0 in its settings: take that out to get "
    "one."
)


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
            search_aliases=["train motion", "motion", "motion module", "fine-tune video", "motion lora", "distil"],
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The Stable Diffusion (1.x, 2.x, XL) model to train for. It is not changed."
                ),
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
                    "images. It must lie in ComfyUI's input folder, or in one that the owner lists as "
                    "magicvideo_clips in extra_model_paths.yaml. A caption stands in a .txt file of the same name, or "
                    "in caption.txt. Leave empty to use images, videos or latents.",
                ),
                of_setting("steps"),
                of_setting("frames"),
                of_setting("width", min=64),
                of_setting("height", min=64),
                of_setting("learning_rate", max=1.0, step=1e-6),
                of_setting("base_tuning"),
                of_setting("seed", max=0xFFFFFFFFFFFFF, control_after_generate=False),
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
                MotionModule.Input(
                    "motion_module",
                    optional=True,
                    tooltip="A motion module that teaches the adaptor, by clips that it samples from prompts; or the "
                    "one that a MotionLoRA is trained for.",
                ),
                io.String.Input(
                    "prompts",
                    optional=True,
                    multiline=True,
                    default="",
                    tooltip="What the motion module's clips show, a prompt a line. It then needs no other clips.",
                ),
                of_setting("train", optional=True),
            ],
            outputs=[
                Adaptor.Output(display_name="adaptor", tooltip="The trained adaptor, for Apply MagicVideo."),
                io.Image.Output(display_name="loss_plot", tooltip="Loss over the steps."),
                io.Image.Output(display_name="sample", tooltip="Frames of a sample clip."),
                MotionModule.Output(
                    display_name="motion_module",
                    tooltip="The motion module with the trained MotionLoRA, for Apply Motion Module.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, clips_folder: Sequence[str | None] = ("",), **_: object) -> str:
        return clips_state(clips_folder)

    @classmethod
    def execute(cls, model: list, clip: list, vae: list, name: list[str], **wired: list[Any]) -> io.NodeOutput:
        settings, start = settings_asked_for(wired), (wired.get("adaptor") or [None])[0]
        train = settings.motion_module.train
        module, prompts = module_asked_for(wired, train)
        settings.check_teacher(bool(prompts))
        clips = clips_asked_for(wired, needed=not prompts)
        run = GraphTraining(
            model=model[0],
            encoders=encoders_of(model[0], clip[0], vae[0]),
            clips=clips,
            settings=settings,
            name=name[0],
            start=start,
            motion_module=module,
            prompts=prompts,
        )
        made, plot, sample = run.train()
        sample = not_given(NO_SAMPLE) if sample is None else sample
        if train == "motion_lora":
            return io.NodeOutput(not_given(NO_ADAPTOR), plot, sample, made)
        return io.NodeOutput(made, plot, sample, not_given(NO_MODULE))
