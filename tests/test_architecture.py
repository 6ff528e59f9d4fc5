"""The arrows between the rooms of the pack, and what its source never does.

``import-linter`` holds the arrows (contracts in pyproject.toml) and ``ruff`` what its rules can say.  By hand is only
what neither knows: each such rule is a function of a parsed file that yields what is wrong with it.  Every contract and
every rule is also run on code that breaks it; that they let sound code pass, the pack's own shows.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from importlinter.api import read_configuration
from pack import ROOT

# What the host loads.  Here it gets a folder of its own, because the clone may be called anything, and because beside
# these there are folders that are no part of the pack.
PARTS = ("__init__.py", "adaptor_unet", "nodes", "trainer")
CONTRACTS = {one["id"]: one for one in read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]}


def source_files() -> list[Path]:
    """Every Python file that the host loads, relative to the pack's root."""
    files = [ROOT / "__init__.py", *(file for part in PARTS for file in (ROOT / part).rglob("*.py"))]
    return sorted(file.relative_to(ROOT) for file in files)


def is_tensor_file(path: Path) -> bool:
    return path.parent == Path("adaptor_unet")


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """All contracts for the package ``magicvideo`` in this folder."""
    start = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", start, "--no-cache", "--no-logo", str(ROOT / "pyproject.toml")]
    wide = os.environ | {"COLUMNS": "400"}  # or it would break lines
    return subprocess.run(command, cwd=folder, env=wide, capture_output=True, text=True, check=False)


def test_the_rooms_import_each_other_as_they_are_drawn(tmp_path: Path) -> None:
    pack = tmp_path / "magicvideo"
    pack.mkdir()
    for part in PARTS:
        if (ROOT / part).exists():
            (pack / part).symlink_to(ROOT / part)
    done = lint_imports(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken" in done.stdout


# Each in a file of its own, all in one small pack.
BROKEN_ARROWS = [
    ("sides", "adaptor_unet/host/a1.py", "from ..training import loop"),
    ("sides", "adaptor_unet/training/a1.py", "from ..host import binding"),
    ("sides", "adaptor_unet/training/data/a1.py", "def later():\n    from ...host import binding"),
    ("rooms", "adaptor_unet/host/a2.py", "from ...nodes import inputs"),
    ("rooms", "adaptor_unet/training/a2.py", "from ...trainer import graph"),
    ("rooms", "trainer/a1.py", "from ..nodes import inputs"),
    ("host", "adaptor_unet/a1.py", "from .host import binding"),
    ("host", "__init__.py", "from .adaptor_unet.host import binding"),
    ("training", "adaptor_unet/a2.py", "def later():\n    from .training.data import shards"),
    ("training", "nodes/a1.py", "from ..adaptor_unet.training import loop"),
    ("rooms", "adaptor_unet/a3.py", "from ..nodes import inputs"),
    ("rooms", "adaptor_unet/a4.py", "from ..trainer import graph"),
    ("comfyui", "adaptor_unet/a5.py", "def later():\n    from comfy.ops import manual_cast"),
    ("comfyui", "adaptor_unet/training/data/a2.py", "import folder_paths"),
    ("comfyui", "adaptor_unet/training/a3.py", "from comfy.model_patcher import ModelPatcher"),
    ("comfyui", "nodes/a2.py", "import nodes"),
    ("comfyui", "trainer/a2.py", "from server import PromptServer"),
    ("comfyui", "trainer/a3.py", "from comfy_api.latest import io"),
    ("comfyui", "__init__.py", "import execution"),
]
# What stands in the rooms of a small pack that keeps every contract.
SOUND = {
    "__init__.py": "def entry():\n    from .nodes import inputs",
    "adaptor_unet/__init__.py": "",
    "adaptor_unet/adaptor.py": "import torch",
    "adaptor_unet/host/__init__.py": "",
    "adaptor_unet/host/binding.py": "import comfy.ops, folder_paths\nfrom ..adaptor import VideoAdaptor",
    "adaptor_unet/training/__init__.py": "",
    "adaptor_unet/training/loop.py": "from ..adaptor import VideoAdaptor\nfrom .data import shards",
    "adaptor_unet/training/data/__init__.py": "",
    "adaptor_unet/training/data/shards.py": "import av",
    "nodes/__init__.py": "from . import inputs",
    "nodes/inputs.py": "from comfy_api.latest import io\nfrom comfy.model_patcher import ModelPatcher\n"
    "from ..adaptor_unet.host import binding\nfrom ..adaptor_unet import adaptor",
    "trainer/__init__.py": "",
    "trainer/graph.py": "from comfy.model_patcher import ModelPatcher\nfrom ..adaptor_unet.host import binding\n"
    "from ..adaptor_unet.training import loop",
}


def small_pack(folder: Path, more: Iterable[tuple[str, str]] = ()) -> Path:
    """A package ``magicvideo`` with the text of SOUND and, at their paths, of ``more``."""
    for path, text in (*SOUND.items(), *more):
        file = folder / "magicvideo" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text + "\n")
    return folder


def test_sound_imports_keep_every_contract(tmp_path: Path) -> None:
    done = lint_imports(small_pack(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is told of each contract where all arrows are broken, by its id."""
    folder = small_pack(tmp_path_factory.mktemp("broken"), [(path, line) for _, path, line in BROKEN_ARROWS])
    names = {contract["name"]: name for name, contract in CONTRACTS.items()}
    titles = rf"^({'|'.join(map(re.escape, names))})\n-+\n"
    _, *parts = re.split(titles, lint_imports(folder).stdout, flags=re.MULTILINE)
    return {names[title]: part for title, part in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize(("contract", "path", "line"), BROKEN_ARROWS)
def test_a_broken_arrow_breaks_its_contract(told: dict[str, str], contract: str, path: str, line: str) -> None:
    module = ".".join(("magicvideo", *Path(path).with_suffix("").parts)).removesuffix(".__init__")
    assert re.search(rf"^- +{re.escape(module)} -> ", told[contract], re.MULTILINE), told[contract]


def test_every_contract_is_broken_once() -> None:
    assert {contract for contract, _, _ in BROKEN_ARROWS} == set(CONTRACTS)


# No remark in the source may switch these off in the pack.
NEVER = "T20,BLE,E722,S102,S30,S60,TID251"


def never_rules(*arguments: str, text: str | None = None) -> list[str]:
    """The codes of the rules that are broken."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--ignore-noqa", "--output-format", "json"]
    done = subprocess.run(
        [*command, "--select", NEVER, *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return [found["code"] for found in json.loads(done.stdout)]


def test_the_pack_never_does_what_ruff_can_tell() -> None:
    assert never_rules(*map(str, source_files())) == []


ROOMS = ("adaptor_unet", "adaptor_unet/host", "adaptor_unet/training/data", "nodes", "trainer")
BANNED = [
    ("T201", "print(1)"),
    ("E722", "try:\n    x\nexcept:\n    pass"),
    ("BLE001", "try:\n    x\nexcept Exception:\n    pass"),
    ("TID251", "import contextlib\nwith contextlib.suppress(Exception):\n    x"),
    ("S307", "eval('1')"),
    ("S102", "exec(text)"),
    ("S605", "from os import system as s\ns('ls')"),
    ("S606", "import os\nos.execv('ls', [])"),
    ("TID251", "import subprocess"),
    ("S301", "from pickle import loads\nloads(text)"),
    ("S302", "import marshal\nmarshal.loads(text)"),
    ("TID251", "import torch as t\nt.load(path)"),
    ("TID251", "import importlib\nimportlib.import_module(name)"),
    ("TID251", "from adaptor_unet.host import binding"),
    ("TID251", "import magicvideo"),
]


@pytest.mark.parametrize("room", ROOMS)
def test_what_the_pack_never_does_would_show_in_every_room(room: str) -> None:
    text = "\n".join(snippet for _, snippet in BANNED)
    found = Counter(never_rules("--stdin-filename", f"{room}/a.py", "-", text=text))
    assert found >= Counter(code for code, _ in BANNED)


Rule = Callable[[Path, ast.Module], Iterator[str]]


def imports(tree: ast.Module) -> Iterator[str]:
    """Each module that is imported by its own name, not relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def packages(path: Path, tree: ast.Module) -> Iterator[str]:
    """Tensor files need torch, einops and safetensors, and the standard library."""
    known = {*sys.stdlib_module_names, "torch", "einops", "safetensors"}
    if is_tensor_file(path):
        yield from (f"imports {name}" for name in imports(tree) if name.split(".")[0] not in known)


def part_of_the_host(path: Path, tree: ast.Module) -> Iterator[str]:
    """Import-linter knows packages of others as a whole: of ``comfy``, nodes and trainer know the type of a model."""
    for name in imports(tree):
        if path.parts[0] in ("nodes", "trainer") and name.split(".")[0] == "comfy" and name != "comfy.model_patcher":
            yield f"imports {name}"


def above_the_pack(path: Path, tree: ast.Module) -> Iterator[str]:
    """A relative import that leaves the pack's folder would reach another pack."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > len(path.parts):
            yield f"line {node.lineno}: leaves the pack"


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of an expression; empty when it is no plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def runs_text(path: Path, tree: ast.Module) -> Iterator[str]:
    """Built-in functions that run text as code, of which ruff has no rule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in ("compile", "__import__"):
            yield f"line {node.lineno}: calls {dotted(node.func)}"


def catches_all(path: Path, tree: ast.Module) -> Iterator[str]:
    """Ruff lets a broad except pass that raises again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            if {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} & {"Exception", "BaseException"}:
                yield f"line {node.lineno}: broad except"


def imported_names(tree: ast.Module) -> set[str]:
    """The names under which a file knows what it imports by name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign | ast.Delete):
        found = node.targets
    else:
        found = [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For) else []
    return [inner for target in found for inner in ast.walk(target) if isinstance(inner, ast.Attribute)]


def foreign_assignments(path: Path, tree: ast.Module) -> Iterator[str]:
    """Modules and classes that are not ours stay as they are: no attribute of theirs is set or deleted."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        for target in targets(node):
            if dotted(target).split(".")[0] in names:
                yield f"line {node.lineno}: sets {dotted(target)}"
        if isinstance(node, ast.Call) and dotted(node.func) in ("setattr", "delattr") and node.args:
            if dotted(node.args[0]).split(".")[0] in names:
                yield f"line {node.lineno}: {dotted(node.func)} on {dotted(node.args[0])}"


def named_shapes(path: Path, tree: ast.Module) -> Iterator[str]:
    """In tensor files every reshape is an einops string."""
    reshaping = {"view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "flatten", "unflatten"}
    for node in ast.walk(tree):
        if is_tensor_file(path) and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in reshaping:
                yield f"line {node.lineno}: {node.func.attr}"


RULES: list[Rule] = [
    packages,
    part_of_the_host,
    above_the_pack,
    runs_text,
    catches_all,
    foreign_assignments,
    named_shapes,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Rule) -> None:
    files = source_files()
    assert len(files) > 50 and Path("adaptor_unet/adaptor.py") in files and Path("nodes/train.py") in files
    wrong = {
        str(path): found
        for path in files
        if (found := list(rule(path, ast.parse((ROOT / path).read_text(encoding="utf-8")))))
    }
    assert wrong == {}


BAD = [
    (packages, "adaptor_unet/a.py", "import numpy"),
    (packages, "adaptor_unet/a.py", "from transformers import CLIPTextModel"),
    (part_of_the_host, "nodes/a.py", "import comfy.model_management"),
    (part_of_the_host, "trainer/a.py", "from comfy.ops import manual_cast"),
    (above_the_pack, "nodes/a.py", "from ... import other_pack"),
    (above_the_pack, "__init__.py", "from ..other_pack import nodes"),
    (runs_text, "nodes/a.py", "__import__('os')"),
    (runs_text, "nodes/a.py", "compile('1', 'a', 'eval')"),
    (catches_all, "nodes/a.py", "try:\n    x\nexcept (OSError, BaseException) as error:\n    raise"),
    (foreign_assignments, "nodes/a.py", "import comfy.ops\ncomfy.ops.manual_cast = None"),
    (foreign_assignments, "nodes/a.py", "import comfy.samplers as s\ns.sampling_function = None"),
    (foreign_assignments, "nodes/a.py", "from torch import nn\nnn.GroupNorm.forward = None"),
    (foreign_assignments, "nodes/a.py", "import nodes\nnodes.MAX += 1"),
    (foreign_assignments, "nodes/a.py", "import torch\ntorch.x: int = 1"),
    (foreign_assignments, "nodes/a.py", "import torch\n(torch.x, y) = 1, 2"),
    (foreign_assignments, "nodes/a.py", "import torch\ndel torch.x"),
    (foreign_assignments, "nodes/a.py", "from comfy import hooks\nsetattr(hooks, name, 1)"),
    (named_shapes, "adaptor_unet/a.py", "y = x.view(2, -1)"),
    (named_shapes, "adaptor_unet/a.py", "y = x.unsqueeze(0)"),
]


@pytest.mark.parametrize(
    ("rule", "path", "snippet"), BAD, ids=lambda value: str(getattr(value, "__name__", value))[:40]
)
def test_each_rule_can_fail(rule: Rule, path: str, snippet: str) -> None:
    assert list(rule(Path(path), ast.parse(snippet)))


def test_every_rule_has_a_snippet_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_the_map_of_the_host_room_names_every_file_once() -> None:
    _, _, rest = (
        (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## The files of the host room\n")
    )
    named = re.findall(r"`(\w+\.py)`", rest.partition("\n## ")[0])
    assert sorted(named) == sorted(path.name for path in (ROOT / "adaptor_unet/host").glob("[!_]*.py"))


DOOR = """
import importlib.util, pathlib, sys

root = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
assert not {"torch", "numpy", "pack.nodes", "pack.adaptor_unet"} & set(sys.modules), "the pack imports at its door"
"""


def opened(root: Path) -> subprocess.CompletedProcess:
    """A pack as the host imports it, in a process that has imported nothing else."""
    return subprocess.run([sys.executable, "-I", "-c", DOOR, str(root)], capture_output=True, text=True, check=False)


def test_importing_the_pack_imports_nothing() -> None:
    done = opened(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["import numpy", "from . import nodes"])
def test_importing_at_the_door_would_show(tmp_path: Path, line: str) -> None:
    (tmp_path / "nodes.py").write_text("")
    (tmp_path / "__init__.py").write_text(line)
    assert "AssertionError" in opened(tmp_path).stderr
