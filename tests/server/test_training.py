"""Training inside a graph, as an artist does it: queue, look, stop, queue again.

What is the pack's own, such as which run is which, is trained on one ComfyUI.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file
from served_models import forget_results
from small_clips import write_clip

from magicvideo.tools.host_server import PACK, HostServer, Prompt
from magicvideo.tools.prompt_edits import read_prompt, with_inputs

LatentOf = Callable[[Prompt], tuple[np.ndarray, object]]
TRAIN = "4"
CHECKPOINT = "magicvideo_random.safetensors"
FAST = "sample_steps = 1\nvalidate_every = 0\nsave_every = 2\ndraws_per_clip = 2\nrank = 4\ninit = 'random'"


@pytest.fixture(scope="module")
def train(server: HostServer) -> Callable[..., Prompt]:
    """The shipped workflow up to its training node, small; keyword arguments are inputs of that node."""
    write_clip(server.base / "input" / "my_clip.mp4")

    def made(only_training: bool = True, **inputs: object) -> Prompt:
        prompt = with_inputs(read_prompt(PACK / "workflows" / "api" / "train_motion.json"), ckpt_name=CHECKPOINT)
        prompt[TRAIN]["inputs"] |= {"steps": 3, "frames": 4, "width": 64, "height": 64, "settings": FAST} | inputs
        prompt[TRAIN]["inputs"] = {name: x for name, x in prompt[TRAIN]["inputs"].items() if x is not None}
        if only_training:
            return {number: prompt[number] for number in ("1", "2", "3", TRAIN, "5")}
        return with_inputs(prompt, batch_size=4, width=64, height=64, steps=prompt[TRAIN]["inputs"]["steps"])

    return made


def adaptors(server: HostServer, name: str) -> list[str]:
    return sorted(path.name for path in (server.base / "models" / "magicvideo").glob(f"{name}_*.safetensors"))


def steps_done(server: HostServer, run: str) -> list[int]:
    lines = (server.output / "magicvideo" / "training" / run / "metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if "loss" in record]


def test_the_shipped_workflow_trains_and_makes_a_clip_with_the_result(
    server: HostServer, train: Callable[..., Prompt]
) -> None:
    finished = server.run(train(only_training=False, name="움직임 one"))
    assert any(name.endswith(".mp4") for name in finished.files())
    assert adaptors(server, "움직임 one") == ["움직임 one_00001.safetensors"]
    assert steps_done(server, "움직임 one_00001") == [1, 2, 3]
    run = server.output / "magicvideo" / "training" / "움직임 one_00001"
    assert (run / "loss.png").is_file() and list((run / "samples").glob("*.webp"))


@pytest.mark.on_newest
def test_the_models_of_other_branches_stay_bit_for_bit(
    server: HostServer, train: Callable[..., Prompt], latent_of: LatentOf, small: Callable[..., Prompt]
) -> None:
    before, _ = latent_of(small("text_to_video", batch_size=4))
    for tuning in ("frozen", "lora"):
        server.run(train(name=f"branch {tuning}", base_tuning=tuning))
    assert (server.base / "models" / "loras" / "branch lora_00001_base.safetensors").is_file()
    assert np.array_equal(latent_of(small("text_to_video", batch_size=4))[0], before)


def test_stopped_and_queued_again_it_goes_on_where_it_was(server: HostServer, train: Callable[..., Prompt]) -> None:
    prompt = train(name="stopped", steps=10_000)
    for least in (1, 0):
        prompt_id = server.queue(prompt)
        before = len(steps_done(server, "stopped_00001")) if adaptors(server, "stopped") else 0
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            path = server.output / "magicvideo" / "training" / "stopped_00001" / "metrics.jsonl"
            if path.exists() and len(steps_done(server, "stopped_00001")) > before + 1:
                break
            time.sleep(0.2)
        server.interrupt()
        assert server.wait(prompt_id, seconds=120).interrupted
        assert adaptors(server, "stopped") == ["stopped_00001.safetensors"]
        done = steps_done(server, "stopped_00001")
        assert done == list(range(1, len(done) + 1)) and len(done) > before + least
    load = {"1": {"class_type": "MagicVideo_LoadAdaptor", "inputs": {"adaptor_name": "stopped_00001.safetensors"}}}
    load["2"] = {"class_type": "MagicVideo_SaveAdaptor", "inputs": {"adaptor": ["1", 0], "filename_prefix": "again"}}
    load["2"]["inputs"] |= dict.fromkeys(("title", "author", "trigger_words", "license"), "")
    server.run(load)


@pytest.mark.on_oldest
def test_changed_inputs_begin_a_new_run_and_the_same_ones_give_the_finished_one(
    server: HostServer, train: Callable[..., Prompt]
) -> None:
    server.run(train(name="twice"))
    server.run(train(name="twice", seed=1))
    assert adaptors(server, "twice") == ["twice_00001.safetensors", "twice_00002.safetensors"]
    forget_results(server)
    server.run(train(name="twice"))
    assert adaptors(server, "twice") == ["twice_00001.safetensors", "twice_00002.safetensors"]
    assert steps_done(server, "twice_00001") == [1, 2, 3]
    (server.base / "models" / "magicvideo" / "twice_00001.safetensors").unlink()
    forget_results(server)
    server.run(train(name="twice"))
    assert adaptors(server, "twice") == ["twice_00001.safetensors", "twice_00002.safetensors"]


@pytest.mark.on_newest
def test_training_goes_on_from_a_calibrated_adaptor(server: HostServer, train: Callable[..., Prompt]) -> None:
    frames, fast = 4, FAST.replace("\nrank = 4\ninit = 'random'", "")
    prompt = train(name="from calibrated", frames=frames, settings=fast, adaptor=["calibrated", 0])
    prompt["video"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["2", 0]}}
    cut = {"image": ["video", 0], "batch_index": 0, "length": frames}
    prompt["cut"] = {"class_type": "ImageFromBatch", "inputs": cut}
    prompt["latents"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["cut", 0], "vae": ["1", 2]}}
    prompt["text"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ["3", 0]}}
    wired = {"model": ["1", 0], "latent": ["latents", 0], "positive": ["text", 0], "steps": 2, "seed": 0}
    prompt["calibrated"] = {"class_type": "MagicVideo_CalibrateAdaptor", "inputs": wired}
    told = dict.fromkeys(("title", "author", "trigger_words", "license"), "")
    saved = {"adaptor": ["calibrated", 0], "filename_prefix": "calibrated start", **told}
    prompt["saved"] = {"class_type": "MagicVideo_SaveAdaptor", "inputs": saved}
    server.run(prompt)
    folder = server.base / "models" / "magicvideo"
    start, trained = (load_file(next(folder.glob(f"{name}_*"))) for name in ("calibrated start", "from calibrated"))
    assert start.keys() == trained.keys()
    for name, value in start.items():
        identity = float(name.endswith("scale"))
        # Three steps change it, and by less than it is away from an adaptor that does nothing.
        moved, away = (abs(trained[name] - value).mean(), abs(value - identity).mean())
        assert 0 < moved < 0.5 * away, name


@pytest.mark.on_oldest
def test_a_folder_of_clips_is_taken_and_encoded_once(server: HostServer, train: Callable[..., Prompt]) -> None:
    folder = server.base / "input" / "my clips 내 클립"
    for place in range(2):
        write_clip(folder / f"clip {place}.mp4", shift=place + 1)
        (folder / f"clip {place}.txt").write_text(f"a square, number {place}", encoding="utf-8")
    (folder / "broken.mp4").write_bytes(b"no video")
    wired = dict.fromkeys(("videos", "captions"))
    server.run(train(name="folder", clips_folder=str(folder), **wired))
    cached = {path: path.stat().st_mtime_ns for path in (server.output / "magicvideo" / "cache" / "clips").iterdir()}
    server.run(train(name="folder", clips_folder=str(folder), seed=2, settings=FAST, **wired))
    assert len(cached) == 2
    assert adaptors(server, "folder") == ["folder_00001.safetensors", "folder_00002.safetensors"]
    assert "broken.mp4" in server.log()


NOTHING = {
    "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "nothing"}},
}


@pytest.mark.on_newest
def test_the_hosts_own_dataset_nodes_feed_it(server: HostServer, train: Callable[..., Prompt]) -> None:
    from PIL import Image

    folder = server.base / "input" / "stills"
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(2):
        Image.new("RGB", (64, 64), (80 * place, 90, 30)).save(folder / f"{place}.png")
        (folder / f"{place}.txt").write_text(f"still {place}", encoding="utf-8")
    server.run(NOTHING)  # so that the list of input folders is read anew
    prompt = train(name="dataset", videos=None, captions=["3", 1], images=["3", 0])
    prompt["3"] = {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": "stills"}}
    server.run(prompt)
    latents = train(name="latents", videos=None, captions=None, latents=["6", 0], conditioning=["6", 1])
    latents["3"] = prompt["3"]
    latents["6"] = {
        "class_type": "MakeTrainingDataset",
        "inputs": {"images": ["3", 0], "vae": ["1", 2], "clip": ["1", 1], "texts": ["3", 1]},
    }
    server.run(latents)
    assert adaptors(server, "dataset") and adaptors(server, "latents")


BAD = {
    "no clips": ({"videos": None}, "exactly one of clips_folder, images, videos and latents; found none"),
    "two sources": ({"clips_folder": "/tmp"}, "found clips_folder, videos"),
    "no such folder": ({"videos": None, "captions": None, "clips_folder": "no/such/folder"}, "no/such/folder"),
    "a folder outside": ({"videos": None, "captions": None, "clips_folder": "/etc"}, "below ComfyUI's input folder"),
    "too many frames": ({"frames": 64}, "has 12 frames; a sub-clip needs 64"),
    "unknown setting": ({"settings": "rnk = 4"}, "no setting 'rnk'. Did you mean rank?"),
    "broken settings": ({"settings": "rank 4"}, "settings of Train MagicVideo Adaptor cannot be read"),
    "an input among the settings": ({"settings": "steps = 4"}, "steps is an input of Train MagicVideo Adaptor itself"),
    "a path for a name": ({"name": "../up"}, "must be a plain file name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case: str, server: HostServer, train: Callable[..., Prompt]) -> None:
    inputs, words = BAD[case]
    finished = server.wait(server.queue(train(**{"name": "bad"} | inputs)), seconds=120)
    assert finished.status == "error"
    assert words in finished.error
    assert not adaptors(server, "bad")
