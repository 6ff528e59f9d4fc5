"""bin/train with a motion module: what is refused before anything is loaded, and both ways from files to a file."""

import json
from pathlib import Path

import pytest
import train as train_command
from safetensors.torch import save_file
from small_clips import write_clip

from magicvideo.adaptor_unet.checkpoint import load
from magicvideo.adaptor_unet.motion_lora import load_motion_lora
from magicvideo.adaptor_unet.training.settings import RunSettings
from magicvideo.nodes import train as node
from magicvideo.tools.make_random_checkpoint import random_motion_lora, random_motion_module, write_random
from magicvideo.tools.motion_module_files import SIZES
from magicvideo.trainer.command import TrainCommand
from magicvideo.trainer.node_inputs import INPUTS, module_asked_for
from motion_modules import plain

pytestmark = pytest.mark.on_newest
CHECKPOINT = Path(__file__).resolve().parents[2] / ".demo" / "models" / "checkpoints" / "magicvideo_random.safetensors"
SMALL = {"frames": 2, "width": 64, "height": 64, "draws_per_clip": 1, "steps": 1, "sample_every": 0}
SMALL |= {"validate_every": 0, "precision": "fp32"}
TAUGHT = SMALL | {"teacher_clips": 1, "teacher_steps": 1}
PROMPTS, MODULE = Path("prompts.txt"), Path("module.ckpt")
TOGETHER = {
    "--teacher needs --prompts": ({"teacher": MODULE}, "adaptor"),
    "--prompts needs --teacher": ({"clips": Path("clips"), "prompts": PROMPTS}, "adaptor"),
    "which is missing": ({"clips": Path("clips"), "teacher_lora": ((MODULE, 1.0),)}, "adaptor"),
    "Nothing to learn from": ({}, "adaptor"),
    "goes with --train motion_lora": ({"clips": Path("clips"), "motion_module": MODULE}, "adaptor"),
    "needs --motion-module FILE.*found neither": ({"clips": Path("clips")}, "motion_lora"),
    "found --teacher": ({"motion_module": MODULE, "teacher": MODULE, "prompts": PROMPTS}, "motion_lora"),
    "needs --clips": ({"motion_module": MODULE}, "motion_lora"),
    "--write-shards encodes the clips of --clips": (
        {"shards": Path("there"), "write_shards": Path("shards")},
        "adaptor",
    ),
    "--write-shards holds clips of your own": (
        {"teacher": MODULE, "prompts": PROMPTS, "write_shards": Path("shards")},
        "adaptor",
    ),
}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"teacher_share": 0.9}, "teacher_share is of a motion module that teaches, and there is none"),
        ({"teacher_cfg": 3.0, "train": "motion_lora"}, "teacher_cfg is of a motion module that teaches"),
        ({"lora_layout": "diffusers"}, "lora_layout is of MotionLoRAs, but an adaptor is trained"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RunSettings.from_values(settings).check_teacher(False)
    RunSettings.from_values({"teacher_share": 0.9}).check_teacher(True)


@pytest.mark.parametrize("words", TOGETHER)
def test_files_that_do_not_go_together_are_refused_before_anything_is_read(words: str, tmp_path: Path) -> None:
    files, kind = TOGETHER[words]
    with pytest.raises(ValueError, match=words):
        TrainCommand(**{"base": Path("base"), "clips": None, "shards": None, "output": tmp_path / "a"} | files).train(
            RunSettings.from_values({"train": kind})
        )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "file", "strength"),
    [("a.ckpt", "a.ckpt", 1.0), ("a.ckpt:0.5", "a.ckpt", 0.5), ("C:\\pan.ckpt", "C:\\pan.ckpt", 1.0)],
)
def test_a_strength_stands_behind_a_colon(text: str, file: str, strength: float) -> None:
    assert train_command.lora_file(text) == (Path(file), strength)


MODULE_HERE = object()
ASKED = {
    "has no motion module to train it on": ({}, "motion_lora"),
    "prompts are of no use": ({"motion_module": [MODULE_HERE], "prompts": ["a"]}, "motion_lora"),
    "the adaptor is of no use": ({"motion_module": [MODULE_HERE], "adaptor": [object()]}, "motion_lora"),
    "none is connected": ({"prompts": ["a wave"]}, "adaptor"),
    "there are no prompts for the teacher": ({"motion_module": [MODULE_HERE], "prompts": [" "]}, "adaptor"),
}


@pytest.mark.parametrize("words", ASKED)
def test_the_node_refuses_what_does_not_go_together(words: str) -> None:
    wired, kind = ASKED[words]
    with pytest.raises(ValueError, match=words):
        module_asked_for(wired, kind)


def test_the_node_gives_what_it_has_trained_and_says_why_the_other_output_is_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []

    class Run:
        def __init__(self, **what: object) -> None:
            given.append(what)

        def train(self) -> tuple[str, str, str]:
            return "made", "plot", "sample"

    monkeypatch.setattr(node, "encoders_of", lambda *_: "encoders")
    monkeypatch.setattr(node, "GraphTraining", Run)
    defaults = {name: [one.default] for name, one in INPUTS.items()} | {"fps": [8.0], "settings": [""]}
    taught = {"clips_folder": [""], "motion_module": [MODULE_HERE], "prompts": ["a wave\na sea"]}
    out = node.TrainAdaptor.execute(["model"], [None], [None], ["name"], **defaults | taught).result
    assert out[:3] == ("made", "plot", "sample") and "use its output adaptor" in out[3].message
    assert given[0]["clips"] is None
    assert (given[0]["motion_module"], given[0]["prompts"]) == (MODULE_HERE, ("a wave", "a sea"))
    lora = {"clips_folder": [""], "images": [object()], "motion_module": [MODULE_HERE], "train": ["motion_lora"]}
    out = node.TrainAdaptor.execute(["model"], [None], [None], ["name"], **defaults | lora).result
    assert out[1:] == ("plot", "sample", "made") and "use its output motion_module" in out[0].message
    assert given[1]["settings"].training.frame_noise_levels == "one_a_clip" and given[1]["prompts"] == ()
    without = {name: x for name, x in defaults.items() if name != "train"}  # as graphs of before have it
    out = node.TrainAdaptor.execute(["model"], [None], [None], ["n"], **without, clips_folder=[""], images=[1]).result
    assert out[0] == "made" and (given[2]["motion_module"], given[2]["prompts"]) == (None, ())
    monkeypatch.setattr(Run, "train", lambda _: ("made", "plot", None))
    out = node.TrainAdaptor.execute(["model"], [None], [None], ["name"], **defaults | taught).result
    assert out[:2] == ("made", "plot") and "sample_every is 0 in its settings" in out[2].message


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A module for the random checkpoint with a MotionLoRA, prompts, and a clip."""
    if not CHECKPOINT.is_file():
        write_random(CHECKPOINT, "checkpoint")
    save_file(random_motion_module(0, "v3", SIZES["compact"]), tmp_path / "module.safetensors")
    save_file(random_motion_lora(0, "v3", SIZES["compact"]), tmp_path / "pan.safetensors")
    (tmp_path / "prompts.txt").write_text("a wave\n\na sea at night\n", encoding="utf-8")
    write_clip(tmp_path / "clips" / "a.mp4")
    return tmp_path


@pytest.mark.slow
def test_prompts_and_a_module_make_an_adaptor_and_a_second_start_samples_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    output = files / "out" / "a.safetensors"
    command = TrainCommand(
        CHECKPOINT,
        None,
        None,
        output,
        resume=True,
        teacher=files / "module.safetensors",
        teacher_lora=((files / "pan.safetensors", 0.5),),
        prompts=files / "prompts.txt",
    )
    settings = RunSettings.from_values(TAUGHT | {"rank": 4, "init": "random", "prediction_share": 1.0})
    assert command.train(settings)
    used = json.loads(load(output).metadata["magicvideo.training"])
    assert used["motion_module"]["loras"] == [["pan.safetensors", 0.5]] and used["motion_module"]["teacher_clips"] == 1
    assert "clip 2 of 2: the teacher samples 'a sea at night', step" in capsys.readouterr().err
    assert len(list((files / "out" / "cache" / "teacher").iterdir())) == 2
    monkeypatch.setattr("magicvideo.adaptor_unet.host.teacher.comfy.sample.sample", pytest.fail)
    monkeypatch.setattr("magicvideo.trainer.plans.MotionTraining", pytest.fail)
    assert command.train(settings)


@pytest.mark.slow
def test_a_clip_and_a_module_make_a_motion_lora(files: Path) -> None:
    output = files / "out" / "pan.safetensors"
    module = files / "module.safetensors"
    command = TrainCommand(CHECKPOINT, files / "clips", None, output, resume=True, motion_module=module)
    settings = RunSettings.from_values(SMALL | {"train": "motion_lora"})
    assert command.train(settings)
    changes = load_motion_lora(output, plain).changes
    assert {change.down.shape[0] for change in changes.values()} == {16} and len(changes) == 8 * 6
    assert command.train(settings), "it is finished"
