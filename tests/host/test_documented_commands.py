"""Every command that README and docs show is run by a test or is here with the reason why not, and its script takes it.

A script that is not run is still given the documented words: its own parser must accept them.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pack import ROOT
from shipped import bash_commands, read, shipped_files

# A script that is not told otherwise takes the newest ComfyUI there is.
pytestmark = pytest.mark.on_newest

PAGES = [path for path in shipped_files(".md") if path.parts[0] in ("docs", "demo") or len(path.parts) == 1]
COMMANDS = sorted({command for page in PAGES for command in bash_commands(read(page))})
# The commands in bin/ that are shell scripts, and what they start.
STARTS = {
    "bin/demo": "demo/make_clip.py",
    "bin/train": "bin/train.py",
    "custom_nodes/ComfyUI-MagicVideo/bin/demo_files.py": "bin/demo_files.py",
}

# Scripts, and the tests that run them or all they are made of.
RUN = {
    "demo/make_clip.py": "tests/server/test_demo_command.py",
    "bin/train.py": "tests/server/test_train_command.py",
    "bin/demo_files.py": "tests/host/test_demo_files.py",
    "demo/model/make_checkpoint.py": "tests/host/test_demo_checkpoint.py",
    "tools/blueprints.py": "tests/test_blueprints.py",
    "tools/demo_workflows.py": "tests/demo/test_demo_workflows.py",
    "tools/draw_clip.py": "tests/test_workflow_files.py",
    "tools/lay_out_workflows.py": "tests/test_page_layout.py",
    "demo/model/padding.py": "tests/demo/test_pad_adaptor.py",
    "demo/train/make_sprite_clips.py": "tests/demo/test_make_sprite_clips.py",
    "demo/train/autoencoder.py": "tests/demo/test_train_autoencoder.py",
    "demo/train/base.py": "tests/host/test_train_base.py",
    "demo/train/motion.py": "tests/host/test_train_motion.py",
    "demo/train/motion_module.py": "tests/host/test_train_motion_module.py",
    "demo/measure/judge_motion.py": "tests/host/test_demo_motion.py",
}
NOT_RUN = {
    "demo/train/draw_sprites.py": "fetches art and a renderer from the network",
    "demo/train/encode_stills.py": "needs the sprites that are fetched from the network",
    "demo/train/decoder.py": "trains for hours, on the sprites that are fetched from the network",
    "tools/make_thumbnails.py": "runs every workflow for minutes; tests/test_thumbnails.py looks at what it has made",
    "demo/measure/animated_subject.py": "fetches an animated emoji from the network; what it trains with is bin/train",
    "benchmarks/overhead.py": "a full-size UNet for minutes, and its figures need a machine that does nothing else",
    "benchmarks/card.py": "a full-size UNet for minutes, and its figures need a card that does nothing else",
    "benchmarks/long.py": "a full-size UNet for minutes, and its figures need a machine that does nothing else",
    "benchmarks/training_memory.py": "counts for minutes; tests/host/test_small_cards.py counts a small UNet with it",
    "benchmarks/training.py": "a full-size UNet for minutes, and its figures need a machine that does nothing else",
    "benchmarks/ablation.py": "trains for an hour; what it puts in place of parts is tested in tests/benchmarks",
    "benchmarks/distillation.py": "trains for hours; what it puts together is tested in tests/host/test_teacher.py",
    "benchmarks/motion_lora.py": "trains for minutes; tests/host/test_motion_lora_training.py has its training",
    "benchmarks/sdxl_sprites.py": "trains for hours; tests/host/test_families.py trains in that layout",
    "benchmarks/consistency.py": "a full-size UNet for hours; its measures are tested in tests/benchmarks",
}
# The ComfyUI that bin/setup fetches.
NEWEST = re.search(r"^NEWEST=(\S+)$", read(Path("bin/hosts.sh")), re.MULTILINE)[1]
# Commands that start no script of ours, or one that takes no words.
OTHERS = {
    r"(COMFYUI_PATH=\S+ )?bash bin/test( -k \w+)?": "it is what runs this test",
    rf"COMFYUI_PATH=\$PWD/\.hosts/{re.escape(NEWEST)} \.venv/bin/python -m pytest -q tests/host/test_NAME_effect\.py": (
        "NAME is the reader's; this test is run so too"
    ),
    r"cd ComfyUI/custom_nodes": "the reader's folder",
    r"git clone ADDRESS_OF_THIS_REPOSITORY ComfyUI-MagicVideo": "needs the network; tests/server links the pack there",
    r"comfy node install comfyui-magicvideo": "needs the registry",
    r"\.venv/bin/python -m pip install -r requirements-test\.txt": "needs the network; bin/setup does it",
}

# Gives each script its words and stops behind the parser. One process for all, because loading torch takes time.
PARSE = """
import argparse, json, runpy, sys

class Taken(BaseException):
    pass

def parse(self, *arguments, real=argparse.ArgumentParser.parse_args):
    real(self, *arguments)
    raise Taken

argparse.ArgumentParser.parse_args = parse
refused = []
for script, words in json.loads(sys.argv[1]):
    started = [script] if script.startswith("bin/") else ["bin/run.py", script]
    sys.argv[:] = [*started, *words]
    sys.path[0] = "bin"
    try:
        runpy.run_path(started[0], run_name="__main__")
        refused.append([script, words, "it reads no words"])
    except Taken:
        pass
    except SystemExit as end:
        refused.append([script, words, str(end)])
print(json.dumps(refused))
"""


def script_of(command: str) -> tuple[str, list[str]] | None:
    """The Python script that a command starts, and its words; None if it starts none that takes any."""
    words = shlex.split(command)
    for place, word in enumerate(words):
        script = STARTS.get(word, word)
        if re.fullmatch(r"(bin|demo|tools|benchmarks)/(\w+/)?\w+\.py", script) and "argparse" in read(Path(script)):
            return script, words[place + 1 :]
    return None


def refused_by_their_scripts(calls: list[tuple[str, list[str]]]) -> list[list]:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, json.dumps(calls)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_run_by_a_test_or_said_to_be_not(command: str) -> None:
    called = script_of(command)
    if called is None:
        assert any(re.fullmatch(other, command) for other in OTHERS), "say in OTHERS what tests it, or why nothing does"
    else:
        assert (ROOT / called[0]).is_file() and called[0] in {**RUN, **NOT_RUN}


@pytest.mark.parametrize("script", RUN)
def test_the_test_that_is_named_uses_the_script(script: str) -> None:
    folder, name = (".".join(Path(script).parent.parts), Path(script).stem)
    imported = rf"\b{re.escape(folder)}(\.| import (\w+, )*){name}\b"
    started = rf"\b{name}\.py\b"
    assert re.search(f"{imported}|{started}", read(Path(RUN[script])))


def test_nothing_is_listed_that_no_page_shows() -> None:
    shown = {called[0] for command in COMMANDS if (called := script_of(command))}
    assert {*RUN, *NOT_RUN} == shown and not set(RUN) & set(NOT_RUN)
    assert [other for other in OTHERS if not any(re.fullmatch(other, command) for command in COMMANDS)] == []


def test_scripts_take_the_documented_words_and_no_others() -> None:
    documented = [called for command in COMMANDS if (called := script_of(command))]
    wrong = ("bin/train.py", ["--no-such-option"])
    assert [tuple(refused[:2]) for refused in refused_by_their_scripts([*documented, wrong])] == [wrong]
