"""The templates of the pack: what each is called in the page's template browser, in the order in which they are needed.

The browser shows the name of a file and nothing else, so `workflows/TITLE.json` is the form that the page opens. The
form that the server runs, which nobody sees, is `workflows/api/NAME.json`. Titles begin with a number, because nothing
else puts files in an order.
"""

from pathlib import Path

from magicvideo.tools.host_server import PACK

WORKFLOWS = PACK / "workflows"
# With nothing trained and with a motion module; training; with an adaptor, short and then long; the demo's.
_IN_ORDER = {
    "video_to_video": "Video to video, nothing trained",
    "motion_module_text_to_video": "Text to video, motion module",
    "motion_module_fast": "Text to video in few steps, motion module",
    "motion_module_loop": "Loop, motion module",
    "motion_module_video_to_video": "Video to video, motion module",
    "motion_module_long_video_to_video": "Long video to video, motion module",
    "video_to_video_controlnet": "Video to video, ControlNet",
    "long_video_to_video_controlnet": "Long video to video, ControlNet",
    "sdxl_video_to_video": "Video to video, SDXL",
    "train_motion": "Train a motion",
    "sdxl_train_motion": "Train a motion, SDXL",
    "text_to_video": "Text to video, adaptor",
    "text_to_video_lora": "Text to video, adaptor and LoRA",
    "text_to_video_controlnet": "Text to video, adaptor and ControlNet",
    "prompts_over_time": "Prompts over time, adaptor",
    "image_to_video": "Image to video, adaptor",
    "extend_clip": "Extend a clip, adaptor",
    "loop": "Loop, adaptor",
    "long_video": "Long video, adaptor",
    "long_video_controlnet": "Long video, adaptor and ControlNet",
    "demo_text_to_video": "Demo, text to video",
    "demo_prompts_over_time": "Demo, prompts over time",
    "demo_image_to_video": "Demo, image to video",
    "demo_extend_clip": "Demo, extend a clip",
    "demo_loop": "Demo, loop",
    "demo_long_video": "Demo, long video",
    "demo_train_motion": "Demo, train a motion",
}
TITLES = {name: f"{number:02} {title}" for number, (name, title) in enumerate(_IN_ORDER.items(), 1)}


def page_form(name: str) -> Path:
    """The file that the page opens; its picture lies beside it."""
    return WORKFLOWS / f"{TITLES[name]}.json"


def server_form(name: str) -> Path:
    """The file that the server runs."""
    return WORKFLOWS / "api" / f"{name}.json"
