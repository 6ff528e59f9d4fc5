"""The real server, started once, with the pack as a custom node and models small enough for a CPU."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from host_server import PACK, Finished, HostServer, Prompt
from make_random_checkpoint import write_random
from prompt_edits import nodes_of, read_prompt, with_inputs

CACHE = PACK / ".demo" / "models"
CHECKPOINT = "magicvideo_random.safetensors"
LORA = "magicvideo_random_lora.safetensors"
CONTROLNET = "magicvideo_random_controlnet.safetensors"
MODELS = {
    "checkpoint": f"checkpoints/{CHECKPOINT}",
    "lora": f"loras/{LORA}",
    "controlnet": f"controlnet/{CONTROLNET}",
}
ADAPTOR = "moved.safetensors"
FRAMES = 16


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH must name a ComfyUI; bash bin/test sets it")
    base = tmp_path_factory.mktemp("base")
    for kind, name in MODELS.items():
        # Generated once and kept between runs; the host sees links to them.
        if not (CACHE / name).is_file():
            write_random(CACHE / name, kind)
        (base / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (base / "models" / name).symlink_to(CACHE / name)
    # The CPU even where there is a GPU: only there is the same run bit for bit the same.
    with HostServer(Path(os.environ["COMFYUI_PATH"]), base, flags=("--cpu",)) as running:
        yield running


@pytest.fixture(scope="session")
def adaptor_name(server: HostServer) -> str:
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


@pytest.fixture(scope="session")
def small(adaptor_name: str) -> Callable[..., Prompt]:
    """A shipped workflow as a user changes it: the trained adaptor and the models that are there; small for a CPU."""

    def shrink(workflow: str, size: int = 64, steps: int = 2, **values: object) -> Prompt:
        prompt = read_prompt(PACK / "workflows" / "api" / f"{workflow}.json")
        for number in nodes_of(prompt, "MagicVideo_NewAdaptor"):
            prompt[number] = {"class_type": "MagicVideo_LoadAdaptor", "inputs": {"adaptor_name": adaptor_name}}
        prompt = with_inputs(prompt, ckpt_name=CHECKPOINT, lora_name=LORA, control_net_name=CONTROLNET)
        return with_inputs(prompt, width=size, height=size, steps=steps, **values)

    return shrink


@pytest.fixture(scope="session")
def latent_of(server: HostServer) -> Callable[[Prompt], tuple[np.ndarray, Finished]]:
    """Samples anew, never from the server's memory. Latents, because pictures would hide small differences."""

    def sample(prompt: Prompt) -> tuple[np.ndarray, Finished]:
        (sampler,) = nodes_of(prompt, "KSampler")
        kept = {number: node for number, node in prompt.items() if not node["class_type"].startswith("Save")}
        kept["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "kept"}}
        for _ in range(3):  # the server may take a prompt before it has seen that it should forget
            server.forget_results()
            finished = server.run(kept)
            if sampler not in finished.message("execution_cached")["nodes"]:
                break
        else:
            raise AssertionError("the server would not sample anew")
        (name,) = finished.files()
        return load_file(server.output / name)["latent_tensor"], finished

    return sample
