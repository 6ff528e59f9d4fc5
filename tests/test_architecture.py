"""The arrows between the rooms of the pack, and what its source never does, read from the source itself.

Every rule is a function of a parsed file that yields what is wrong with it.  ``test_each_rule_can_fail`` runs the same
functions on bad snippets.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Top-level modules of ComfyUI; none of them is a package of the registry.
HOST = {
    "comfy",
    "comfy_api",
    "comfy_config",
    "comfy_execution",
    "comfy_extras",
    "app",
    "cuda_malloc",
    "execution",
    "folder_paths",
    "latent_preview",
    "main",
    "nodes",
    "node_helpers",
    "protocol",
    "server",
}

# The pack's rooms, and which they may import beside themselves.
ROOMS = {
    "entry": {"nodes"},
    "nodes": {"trainer", "host", "tensor"},
    "trainer": {"host", "training", "tensor"},
    "host": {"tensor"},
    "training": {"tensor"},
    "tensor": set(),
}

# What each room may import of the host; None for anything.
HOST_MODULES: dict[str, set[str] | None] = {
    "entry": set(),
    "nodes": {"comfy_api", "comfy_api.latest", "comfy.model_patcher"},
    "trainer": {"comfy.model_patcher"},
    "host": None,
    "training": set(),
    "tensor": set(),
}

Rule = Callable[[Path, ast.Module], Iterator[str]]


def source_files() -> list[Path]:
    """Every Python file that the host loads, relative to the pack's root."""
    files = [
        ROOT / "__init__.py",
        *ROOT.glob("adaptor_unet/**/*.py"),
        *ROOT.glob("nodes/**/*.py"),
        *ROOT.glob("trainer/**/*.py"),
    ]
    return sorted(file.relative_to(ROOT) for file in files)


def room_of(path: Path) -> str:
    match path.parts:
        case ("adaptor_unet", ("host" | "training") as room, *_):
            return room
        case ("adaptor_unet", *_):
            return "tensor"
        case ("nodes" | "trainer" as room, *_):
            return room
    return "entry"


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each imported module, as ``("pack", "adaptor_unet/host/binding")`` or ``("other", "comfy.ops")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (("other", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield "other", node.module
        elif isinstance(node, ast.ImportFrom):
            folder = path.parts[: len(path.parts) - node.level]
            module = [*folder, *(node.module.split(".") if node.module else [])]
            if len(path.parts) < node.level:
                yield "other", f"{'.' * node.level}{node.module or ''}"
            else:
                yield from (("pack", "/".join([*module, alias.name])) for alias in node.names)


def arrows(path: Path, tree: ast.Module) -> Iterator[str]:
    """nodes -> trainer -> host -> tensor, nodes -> host, trainer -> training -> tensor."""
    own = room_of(path)
    for where, module in imports(path, tree):
        if where == "pack" and (room := room_of(Path(module))) not in {own, *ROOMS[own]}:
            yield f"{own} imports {module} of {room}"


def host_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """Only ``adaptor_unet/host`` imports the host; nodes know its node interface and the type of a model."""
    allowed = HOST_MODULES[room_of(path)]
    for where, module in imports(path, tree):
        if where == "other" and module.split(".")[0] in HOST and allowed is not None and module not in allowed:
            yield f"imports {module}"


def relative_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """The pack works under any folder name, so it never imports itself by name and never reaches outside."""
    for where, module in imports(path, tree):
        if where == "other" and (module.startswith(".") or module.split(".")[0] in {"magicvideo", "adaptor_unet"}):
            yield f"imports {module}"


def packages(path: Path, tree: ast.Module) -> Iterator[str]:
    """Tensor files need torch, einops and safetensors, and the standard library."""
    for where, module in imports(path, tree):
        name = module.split(".")[0]
        if room_of(path) == "tensor" and where == "other" and name not in sys.stdlib_module_names:
            if name not in {"torch", "einops", "safetensors"}:
                yield f"imports {module}"


def length(path: Path, tree: ast.Module) -> Iterator[str]:
    """Counts to the last statement, which a parsed snippet knows too."""
    last = max((node.end_lineno for node in tree.body), default=0)
    if last > 350:
        yield f"has {last} lines"


def prints(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "pprint"):
            yield f"line {node.lineno}: print"


def broad_excepts(path: Path, tree: ast.Module) -> Iterator[str]:
    broad = {"Exception", "BaseException"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None or {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} & broad:
                yield f"line {node.lineno}: broad except"
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "suppress":
            if {dotted(argument) for argument in node.args} & broad:
                yield f"line {node.lineno}: broad suppress"


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of an expression; empty when it is no plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, by its full dotted path; relative imports are the pack's own."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.asname and alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {name: target or name for name, target in names.items()}


def full_name(node: ast.AST, names: dict[str, str]) -> str:
    first, *rest = dotted(node).split(".")
    return ".".join([names.get(first, first), *rest])


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
                yield f"line {node.lineno}: sets {full_name(target, names)}"
        if isinstance(node, ast.Call) and dotted(node.func) in ("setattr", "delattr") and node.args:
            if dotted(node.args[0]).split(".")[0] in names:
                yield f"line {node.lineno}: {dotted(node.func)} on {full_name(node.args[0], names)}"


def unsafe(path: Path, tree: ast.Module) -> Iterator[str]:
    """Nothing that runs text or bytes, starts a process or unpickles."""
    names = imported_names(tree)
    calls = {"eval", "exec", "compile", "__import__", "importlib.import_module", "torch.load", "torch.hub.load"}
    calls |= {"os.system", "os.popen", "torch.jit.load", "torch.package.PackageImporter"}
    modules = {"subprocess", "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "ctypes", "pty"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = full_name(node.func, names)
            starts = name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "os.fork"))
            if name.removeprefix("builtins.") in calls or starts:
                yield f"line {node.lineno}: calls {name}"
    for node in ast.walk(tree):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            # An error may be named, so that it can be caught.
            found = [node.module or ""] if found != ["UnpicklingError"] else []
        yield from (f"imports {module}" for module in found if module.split(".")[0] in modules)


def named_shapes(path: Path, tree: ast.Module) -> Iterator[str]:
    """In tensor files every reshape is an einops string."""
    reshaping = {"view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "flatten", "unflatten"}
    for node in ast.walk(tree):
        if room_of(path) == "tensor" and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in reshaping:
                yield f"line {node.lineno}: {node.func.attr}"


RULES: list[Rule] = [
    arrows,
    host_imports,
    relative_imports,
    packages,
    length,
    prints,
    broad_excepts,
    foreign_assignments,
    unsafe,
    named_shapes,
]


@pytest.mark.parametrize("path", source_files(), ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Rule, path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert list(rule(path, tree)) == []


def test_the_rules_are_applied_to_the_rooms() -> None:
    assert {room_of(path) for path in source_files()} >= {"entry", "nodes", "host", "tensor"}
    assert {path.name for path in source_files() if room_of(path) == "tensor"} >= {"adaptor.py", "checkpoint.py"}


BAD = [
    (arrows, "adaptor_unet/a.py", "from .host.binding import bind"),
    (arrows, "adaptor_unet/a.py", "from .host import binding"),
    (arrows, "adaptor_unet/a.py", "from . import host"),
    (arrows, "adaptor_unet/a.py", "from .training import loop"),
    (arrows, "adaptor_unet/a.py", "from ..nodes.apply import ApplyMagicVideo"),
    (arrows, "adaptor_unet/a.py", "def later():\n    from ..nodes import apply"),
    (arrows, "adaptor_unet/training/a.py", "from ..host.binding import bind"),
    (arrows, "adaptor_unet/training/a.py", "from .. import host"),
    (arrows, "adaptor_unet/host/a.py", "from ..training import loop"),
    (arrows, "adaptor_unet/host/a.py", "from ...trainer import graph"),
    (arrows, "adaptor_unet/training/data/a.py", "from ....trainer import graph"),
    (arrows, "nodes/a.py", "from ..adaptor_unet.training.loop import train"),
    (arrows, "trainer/a.py", "from ..nodes.wire import Adaptor"),
    (arrows, "adaptor_unet/host/a.py", "from ...nodes.wire import Adaptor"),
    (arrows, "__init__.py", "from .adaptor_unet.host import binding"),
    (host_imports, "adaptor_unet/a.py", "import comfy.ops"),
    (host_imports, "adaptor_unet/a.py", "def later():\n    from comfy.ops import manual_cast"),
    (host_imports, "adaptor_unet/training/a.py", "import folder_paths"),
    (host_imports, "adaptor_unet/training/a.py", "from comfy.model_patcher import ModelPatcher"),
    (host_imports, "nodes/a.py", "import comfy.model_management"),
    (host_imports, "trainer/a.py", "import comfy.model_management"),
    (host_imports, "nodes/a.py", "import nodes"),
    (host_imports, "nodes/a.py", "from server import PromptServer"),
    (host_imports, "__init__.py", "import execution"),
    (relative_imports, "nodes/a.py", "from adaptor_unet.host import binding"),
    (relative_imports, "nodes/a.py", "import magicvideo"),
    (relative_imports, "nodes/a.py", "from ... import other_pack"),
    (packages, "adaptor_unet/a.py", "import numpy"),
    (packages, "adaptor_unet/a.py", "from transformers import CLIPTextModel"),
    (length, "nodes/a.py", "x = 1\n" * 351),
    (prints, "nodes/a.py", "print(1)"),
    (broad_excepts, "nodes/a.py", "try:\n    x\nexcept:\n    pass"),
    (broad_excepts, "nodes/a.py", "try:\n    x\nexcept Exception:\n    pass"),
    (broad_excepts, "nodes/a.py", "try:\n    x\nexcept (OSError, BaseException) as error:\n    raise"),
    (broad_excepts, "nodes/a.py", "with contextlib.suppress(Exception):\n    x"),
    (foreign_assignments, "nodes/a.py", "import comfy.ops\ncomfy.ops.manual_cast = None"),
    (foreign_assignments, "nodes/a.py", "import comfy.samplers as s\ns.sampling_function = None"),
    (foreign_assignments, "nodes/a.py", "from torch import nn\nnn.GroupNorm.forward = None"),
    (foreign_assignments, "nodes/a.py", "import nodes\nnodes.MAX += 1"),
    (foreign_assignments, "nodes/a.py", "import torch\ntorch.x: int = 1"),
    (foreign_assignments, "nodes/a.py", "import torch\n(torch.x, y) = 1, 2"),
    (foreign_assignments, "nodes/a.py", "import torch\ndel torch.x"),
    (foreign_assignments, "nodes/a.py", "from comfy import hooks\nsetattr(hooks, name, 1)"),
    (unsafe, "nodes/a.py", "eval('1')"),
    (unsafe, "nodes/a.py", "exec(text)"),
    (unsafe, "nodes/a.py", "import os\nos.system('ls')"),
    (unsafe, "nodes/a.py", "from os import system as s\ns('ls')"),
    (unsafe, "nodes/a.py", "import os\nos.execv('ls', [])"),
    (unsafe, "nodes/a.py", "import subprocess"),
    (unsafe, "nodes/a.py", "from pickle import loads"),
    (unsafe, "nodes/a.py", "import torch as t\nt.load(path)"),
    (unsafe, "nodes/a.py", "__import__('os')"),
    (named_shapes, "adaptor_unet/a.py", "y = x.view(2, -1)"),
    (named_shapes, "adaptor_unet/a.py", "y = x.unsqueeze(0)"),
]

FINE = [
    (arrows, "adaptor_unet/training/a.py", "from ..adaptor import VideoAdaptor\nfrom . import config"),
    (arrows, "adaptor_unet/host/a.py", "from ..adaptor import VideoAdaptor\nfrom .motion import Motion"),
    (arrows, "nodes/a.py", "from ..trainer.graph import GraphTraining\nfrom .wire import Adaptor"),
    (arrows, "trainer/a.py", "from ..adaptor_unet.training.loop import train\nfrom ..adaptor_unet.host.fresh import x"),
    (arrows, "__init__.py", "def entry():\n    from .nodes import Extension"),
    (host_imports, "adaptor_unet/host/a.py", "import comfy.ops, folder_paths"),
    (host_imports, "nodes/a.py", "from comfy_api.latest import io\nfrom comfy.model_patcher import ModelPatcher"),
    (broad_excepts, "nodes/a.py", "try:\n    x\nexcept (OSError, ValueError):\n    pass"),
    (foreign_assignments, "nodes/a.py", "import torch\nself.x = torch.ones(1)\nmodel.y = 2"),
    (unsafe, "nodes/a.py", "model.eval()\nre.compile('x')\nload(path)"),
]


@pytest.mark.parametrize(
    ("rule", "path", "snippet"), BAD, ids=lambda value: str(getattr(value, "__name__", value))[:40]
)
def test_each_rule_can_fail(rule: Rule, path: str, snippet: str) -> None:
    assert list(rule(Path(path), ast.parse(snippet)))


@pytest.mark.parametrize(
    ("rule", "path", "snippet"), FINE, ids=lambda value: str(getattr(value, "__name__", value))[:40]
)
def test_each_rule_lets_sound_code_pass(rule: Rule, path: str, snippet: str) -> None:
    assert list(rule(Path(path), ast.parse(snippet))) == []


def test_every_rule_has_a_snippet_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_every_tensor_file_has_a_test_file() -> None:
    sources = {path.name for path in source_files() if path.parent == Path("adaptor_unet")} - {"__init__.py"}
    assert sources == {path.name.removeprefix("test_") for path in (ROOT / "tests/tensor").glob("test_*.py")}


IMPORT = """
import importlib, importlib.util, pathlib, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] not in HOST, f"{name} of the host was imported"

HOST, root = set(sys.argv[1].split(",")), pathlib.Path(sys.argv[2])
sys.meta_path.insert(0, Refusing())
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
assert not {"torch", "numpy", "pack.nodes", "pack.adaptor_unet"} & set(sys.modules), "the pack imports at its door"
for name in sys.argv[3:]:
    importlib.import_module(name)
"""


def imported_without_host(root: Path, *modules: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", "-c", IMPORT, ",".join(HOST), str(root), *modules]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_importing_the_pack_imports_nothing_and_its_tensor_files_no_host() -> None:
    files = [path.with_suffix("") for path in source_files() if room_of(path) in ("tensor", "training")]
    done = imported_without_host(ROOT, *(".".join(["pack", *file.parts]) for file in files))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["import comfy.ops", "import numpy", "from . import nodes"])
def test_importing_at_the_door_would_show(tmp_path: Path, line: str) -> None:
    (tmp_path / "nodes.py").write_text("")
    (tmp_path / "__init__.py").write_text(line)
    assert "AssertionError" in imported_without_host(tmp_path).stderr
