"""What needs nothing trained, wired in a graph as a user would."""

import json
from collections.abc import Callable

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from magicvideo.tools.host_server import HostServer, Prompt
from magicvideo.tools.prompt_edits import nodes_of
from workflow_input import make_input_files

Small = Callable[..., Prompt]


def test_a_calibrated_adaptor_is_saved_and_applied(server: HostServer, small: Small) -> None:
    prompt = small("video_to_video_controlnet", length=4)
    make_input_files(prompt, server.base / "input")
    (encode,), (text, *_), (guider,) = (nodes_of(prompt, kind) for kind in ("VAEEncode", "CLIPTextEncode", "CFGGuider"))
    model = prompt[guider]["inputs"]["model"]
    settings = {"model": model, "latent": [encode, 0], "positive": [text, 0], "steps": 2, "seed": 0}
    prompt["made"] = {"class_type": "MagicVideo_CalibrateAdaptor", "inputs": settings}
    told = dict.fromkeys(("title", "author", "trigger_words", "license"), "")
    saved = {"adaptor": ["made", 0], "filename_prefix": "calibrated", **told}
    prompt["saved"] = {"class_type": "MagicVideo_SaveAdaptor", "inputs": saved}
    applied = {"model": model, "adaptor": ["made", 0], "strength": 1.0, "fps": 8.0, "frames_per_clip": 0}
    prompt["applied"] = {
        "class_type": "MagicVideo_Apply",
        "inputs": applied | {"start_percent": 0.0, "end_percent": 1.0},
    }
    prompt[guider]["inputs"]["model"] = ["applied", 0]
    assert server.run(prompt).files()
    path = next((server.base / "models" / "magicvideo").glob("calibrated_*.safetensors"))
    with safe_open(path, framework="np") as file:
        config = json.loads(file.metadata()["magicvideo.config"])
    assert config["frames"] == 4 and config["parts"] == ["frame", "spatial"]
    assert all(np.isfinite(value).all() for value in load_file(path).values())
