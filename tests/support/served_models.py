"""Models small enough for a CPU, where a server's loaders look for them, generated once and kept.

Random ones, and the demo's under the names that its own workflows ask for.
"""

import json
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from magicvideo.demo.model.demo_models import ADAPTOR as DEMO_ADAPTOR
from magicvideo.demo.model.demo_models import CHECKPOINT as DEMO_CHECKPOINT
from magicvideo.demo.model.demo_models import ensure_models
from magicvideo.tools.host_server import PACK, HostServer, Prompt
from magicvideo.tools.make_random_checkpoint import MOTION_MAKERS, write_random, write_random_motion

KEPT = PACK / ".demo" / "models"
CHECKPOINT = "magicvideo_random.safetensors"
LORA = "magicvideo_random_lora.safetensors"
CONTROLNET = "magicvideo_random_controlnet.safetensors"
MOTION_MODULE, MOTION_LORA = "magicvideo_random_motion_module.ckpt", "magicvideo_random_motion_lora.ckpt"
MODELS = {
    "checkpoint": f"checkpoints/{CHECKPOINT}",
    "lora": f"loras/{LORA}",
    "controlnet": f"controlnet/{CONTROLNET}",
    "motion_module": f"animatediff_models/{MOTION_MODULE}",
    "motion_lora": f"animatediff_motion_lora/{MOTION_LORA}",
}
# The inputs that name a model file, and the kind of model that they name.
NAMED_BY = {
    "ckpt_name": "checkpoint",
    "lora_name": "lora",
    "control_net_name": "controlnet",
    "module_name": "motion_module",
}
ADAPTOR = "moved.safetensors"
# What lies in the adaptor folder after somebody saved a download page under the name of a model.
WEB_PAGE = "downloaded.safetensors"
FRAMES = 16


def link_models(base: Path) -> None:
    """Puts each of MODELS into this base directory, as a link."""
    for kind in MODELS:
        _link(kind, base / "models" / MODELS[kind])


def link_demo_models(base: Path) -> None:
    """Puts the demo's checkpoint and adaptor into this base directory, as links."""
    ensure_models(KEPT.parent)
    for name in (f"checkpoints/{DEMO_CHECKPOINT}", f"magicvideo/{DEMO_ADAPTOR}"):
        _place(KEPT / name, base / "models" / name)


def link_asked_for(base: Path, prompts: Iterable[Prompt]) -> None:
    """Puts a random model under every file name that these prompts ask a loader for."""
    for prompt in prompts:
        for node in prompt.values():
            for name, kind in NAMED_BY.items():
                if name in node["inputs"]:
                    _link(kind, base / "models" / Path(MODELS[kind]).parent / node["inputs"][name])


def _link(kind: str, place: Path) -> None:
    source = KEPT / MODELS[kind]
    if not source.is_file() and kind in MOTION_MAKERS:
        write_random_motion(source, kind, variant="v2", size="compact")
    elif not source.is_file():
        write_random(source, kind)
    _place(source, place)


def _place(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.symlink_to(source)


def make_adaptor(server: HostServer) -> str:
    """An adaptor that changes pictures: saved by the pack's own node, then every value moved as by training."""
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "2": {
            "class_type": "MagicVideo_NewAdaptor",
            "inputs": {"model": ["1", 0], "frames": FRAMES, "rank": 8, "init": "random", "seed": 0},
        },
        "3": {
            "class_type": "MagicVideo_SaveAdaptor",
            "inputs": {"adaptor": ["2", 0], "filename_prefix": "new"}
            | dict.fromkeys(("title", "author", "trigger_words", "license"), ""),
        },
    }
    server.run(prompt)
    folder = server.base / "models" / "magicvideo"
    move_values(next(folder.glob("new_*.safetensors")), folder / ADAPTOR)
    return ADAPTOR


def forget_results(server: HostServer) -> None:
    """Makes the server run every node anew the next time, instead of handing out results it kept."""
    server.post("/free", {"free_memory": True})
    # The flag is read by the thread that runs prompts; give it the moment to do so.
    time.sleep(0.5)


def move_values(source: Path, target: Path) -> None:
    """Copies a safetensors file with noise added to every float32 value, header and all else as they were."""
    content = bytearray(source.read_bytes())
    (header_size,) = struct.unpack("<Q", content[:8])
    data = 8 + header_size
    noise = np.random.default_rng(0)
    for name, entry in json.loads(content[8:data]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (data + offset for offset in entry["data_offsets"])
            values = np.frombuffer(content[begin:end], np.float32)
            content[begin:end] = (values + 0.05 * noise.standard_normal(len(values))).astype(np.float32).tobytes()
    target.write_bytes(content)
