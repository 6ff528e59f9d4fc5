"""The real server, started once, with the pack as a custom node and models small enough for a CPU."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import train as train_command
from safetensors.numpy import load_file
from served_models import CHECKPOINT, CONTROLNET, LORA, MOTION_MODULE, link_demo_models, link_models, make_adaptor

from magicvideo.tools.host_server import PACK, Finished, HostServer, Prompt
from magicvideo.tools.prompt_edits import nodes_of, read_prompt, with_adaptor_file, with_inputs


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], int]]:
    """Trains by these words of bin/train in this process, where ComfyUI is loaded already, and gives the exit code."""
    logger = logging.getLogger("magicvideo")
    level = logger.level

    def run(words: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", words)
        return train_command.main()

    yield run
    logger.setLevel(level)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH must name a ComfyUI; bash bin/test sets it")
    base, comfyui = tmp_path_factory.mktemp("base"), Path(os.environ["COMFYUI_PATH"])
    link_models(base)
    link_demo_models(base)
    # The CPU even where there is a GPU: only there is the same run bit for bit the same.
    with HostServer(comfyui, base, flags=("--cpu",)) as running:
        yield running


@pytest.fixture(scope="session")
def adaptor_name(server: HostServer) -> str:
    return make_adaptor(server)


@pytest.fixture(scope="session")
def small(adaptor_name: str) -> Callable[..., Prompt]:
    """A shipped workflow as a user changes it: the trained adaptor and the models that are there; small for a CPU.

    Those for the demo model keep its files, which are there.
    """

    def shrink(
        workflow: str, size: int = 64, steps: int = 2, folder: Path = PACK / "workflows", **values: object
    ) -> Prompt:
        prompt = read_prompt(folder / "api" / f"{workflow}.json")
        if not workflow.startswith("demo_"):
            prompt = with_adaptor_file(prompt, adaptor_name)
            prompt = with_inputs(prompt, ckpt_name=CHECKPOINT, lora_name=LORA, control_net_name=CONTROLNET)
            prompt = with_inputs(prompt, module_name=MOTION_MODULE)
        return with_inputs(prompt, width=size, height=size, steps=steps, **values)

    return shrink


@pytest.fixture(scope="session")
def latent_of(server: HostServer) -> Callable[[Prompt], tuple[np.ndarray, Finished]]:
    """Samples anew, never from the server's memory, with the models that lie there loaded by earlier runs.

    Latents, because pictures would hide small differences.
    """
    runs = count()

    def sample(prompt: Prompt) -> tuple[np.ndarray, Finished]:
        (sampler,) = nodes_of(prompt, "KSampler")
        kept = {number: node for number, node in prompt.items() if not node["class_type"].startswith("Save")}
        kept["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "kept"}}
        # An input that the sampler does not know is not given to it, and makes it another node than that of any run.
        kept[sampler] = kept[sampler] | {"inputs": kept[sampler]["inputs"] | {"run": next(runs)}}
        finished = server.run(kept)
        assert sampler not in finished.message("execution_cached")["nodes"]
        (name,) = finished.files()
        return load_file(server.output / name)["latent_tensor"], finished

    return sample
