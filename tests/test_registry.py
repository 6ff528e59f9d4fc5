"""What the Comfy Registry asks of a pack, as far as it can be seen without a network.

Source: docs.comfy.org, the pages "Standards" and "Specifications" of the Registry.
"""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from pack import ROOT
from shipped import read, shipped_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

MIB = 1 << 20
WEIGHTS = Path("demo/weights")
INSTALLED_BY = {"PIL": "pillow"}
# The host brings it, in the build that fits the machine; a pack that asks for it may replace that build.
HOST_PACKAGES = {"torch"}
# What one setting of a training needs; a sentence says so where it is missing (adaptor_unet/training/optimisers.py).
OPTIONAL = {"bitsandbytes"}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return tomllib.loads(read(Path("pyproject.toml")))


@pytest.fixture
def project(metadata: dict[str, Any]) -> dict[str, Any]:
    return metadata["project"]


@pytest.fixture
def comfy(metadata: dict[str, Any]) -> dict[str, Any]:
    return metadata["tool"]["comfy"]


def top_release() -> tuple[str, str]:
    """Version and date of the changelog's first entry; the date is ``unreleased`` until there is one."""
    found = re.search(r"^## \[([^\]]+)\] - (\S+)$", read(Path("CHANGELOG.md")), re.MULTILINE)
    return found[1], found[2]


def is_released() -> bool:
    return top_release()[1] != "unreleased"


def test_the_name_is_one_that_the_registry_takes(project: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z](?:[-_.]?[a-z0-9])*", project["name"]) and len(project["name"]) < 100


def test_the_version_has_three_numbers_and_is_the_changelogs_first(project: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["version"] == top_release()[0]


def test_the_project_is_described(project: dict[str, Any]) -> None:
    assert 20 < len(project["description"]) < 200
    assert (ROOT / project["readme"]).is_file() and (ROOT / project["license"]["file"]).is_file()
    assert re.fullmatch(r">=3\.\d+", project["requires-python"])
    assert any(line.startswith("Operating System :: ") for line in project["classifiers"])
    assert all(re.fullmatch(r"[\w .+/-]+( :: [\w .+/()-]+)+", line) for line in project["classifiers"])


def test_the_registry_is_told_publisher_name_icon_and_comfyui_version(comfy: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", comfy["PublisherId"]) and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    oldest = re.search(r"^OLDEST=(\S+)$", read(Path("bin/hosts.sh")), re.MULTILINE)[1]
    assert comfy["requires-comfyui"] == f">={oldest}", "the oldest version that is tested"


def test_the_icon_is_a_picture_of_a_kind_and_size_that_the_registry_takes(comfy: dict[str, Any]) -> None:
    icon = Path(re.sub(r"^https://.*?/(?=docs/)", "", comfy["Icon"]))
    assert icon.suffix == ".svg"
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', read(icon)).groups())
    assert width <= 800 and height <= 400


def test_a_release_says_where_the_repository_and_the_icon_are(project: dict[str, Any], comfy: dict[str, Any]) -> None:
    """Until the first release these may be open, and README then says so at the place where the address belongs."""
    urls = project["urls"]
    assert all(address.startswith("https://") for address in urls.values())
    if is_released() or "Repository" in urls:
        assert urls["Repository"] and comfy["Icon"].startswith("https://")
        assert urls["Repository"] in read(Path("README.md"))
    else:
        assert "ADDRESS_OF_THIS_REPOSITORY" in read(Path("README.md"))


def top_modules(path: Path) -> set[str]:
    """Packages that a file imports, at the top or later; what only type checkers read is left out."""
    tree = ast.parse(read(path))
    unread = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in unread:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node not in unread:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_the_requirements_are_what_the_pack_imports(project: dict[str, Any]) -> None:
    files = [
        path for path in shipped_files(".py") if path.parts[0] in ("__init__.py", "adaptor_unet", "nodes", "trainer")
    ]
    imported = set().union(*map(top_modules, files)) - set(sys.stdlib_module_names)
    host = {"comfy", "comfy_api", "comfy_execution", "comfy_extras"}
    host |= {"folder_paths", "latent_preview", "nodes", "server"}
    wanted = {INSTALLED_BY.get(name, name) for name in imported - host - HOST_PACKAGES - OPTIONAL - {"tomllib"}}
    lines = read(Path("requirements.txt")).splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert {name.lower() for name in listed} == wanted
    assert sorted(listed) == sorted(project["dependencies"])


def left_out() -> tuple[str, ...]:
    """What .comfyignore keeps out of the registry's archive: folders that end in a slash, and files, some by a star."""
    lines = read(Path(".comfyignore")).splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def handed_out(ending: str = "") -> list[Path]:
    """The files of the registry's archive."""

    def kept_out(path: str) -> bool:
        return any(path.startswith(name) if name.endswith("/") else fnmatch(path, name) for name in left_out())

    return [path for path in shipped_files(ending) if not kept_out(path.as_posix())]


def refused(tree: ast.Module) -> Iterator[str]:
    """Text that is run, packages that are installed, code that is hidden."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield f"line {node.lineno}: {node.func.id}"
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("eval", "exec")
            and getattr(node.value, "id", "") == "builtins"
        ):
            yield f"line {node.lineno}: builtins.{node.attr}"
        # As a word of a command. A sentence that tells the user to run pip is another string.
        if isinstance(node, ast.Constant) and node.value in ("pip", "uv", "conda", "ensurepip"):
            yield f"line {node.lineno}: {node.value}"
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("system", "popen"):
            yield f"line {node.lineno}: {node.func.attr}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            hiding = {"pip", "ensurepip", "marshal", "builtins"}
            yield from (f"line {node.lineno}: {name}" for name in named if name.partition(".")[0] in hiding)
        if getattr(node, "end_lineno", 0) and node.end_lineno == node.lineno and node.end_col_offset > 300:
            yield f"line {node.lineno}: too long to be read"


@pytest.mark.parametrize("path", handed_out(".py"), ids=str)
def test_code_runs_no_text_installs_nothing_and_hides_nothing(path: Path) -> None:
    assert list(refused(ast.parse(read(path)))) == []


@pytest.mark.parametrize(
    "snippet",
    [
        "eval('1')",
        "exec(text)",
        "import builtins\nbuiltins.exec(text)",
        "run([sys.executable, '-m', 'pip', 'install', 'x'])",
        "from pip import main",
        "import pip._internal",
        "os.system('pip install x')",
        "import marshal",
        f"x = '{'a' * 300}'",
    ],
)
def test_what_the_registry_refuses_is_found(snippet: str) -> None:
    assert list(refused(ast.parse(snippet)))


@pytest.mark.parametrize("snippet", ["model.eval()", "say('run `pip install accelerate`')", "re.compile('x')"])
def test_sound_code_is_not_refused(snippet: str) -> None:
    assert list(refused(ast.parse(snippet))) == []


def test_no_large_file_strays_in() -> None:
    sizes = {path: (ROOT / path).stat().st_size for path in shipped_files()}
    assert {path: size for path, size in sizes.items() if size > MIB and path.parent != WEIGHTS} == {}
    assert sum(size for path, size in sizes.items() if path.parent == WEIGHTS) < 40 * MIB
    assert sum(size for path, size in sizes.items() if path.parent != WEIGHTS) < 10 * MIB


def test_the_archive_of_the_registry_is_small_and_holds_what_users_run() -> None:
    files = handed_out()
    assert not {path.parts[0] for path in files} & {"benchmarks", "docs", "tests"}
    assert not [path for path in files if path.suffix == ".safetensors"]
    assert sum((ROOT / path).stat().st_size for path in files) < 5 * MIB
    assert {Path("bin/train.py"), Path("bin/pack.py"), Path("tools/host_in_process.py")} < set(files)


def test_only_weights_that_cannot_run_code_are_shipped() -> None:
    kinds = {path.suffix for path in shipped_files()}
    assert not kinds & {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".exe", ".so", ".dll", ".pyc", ".zip", ".whl"}


def test_what_is_left_out_of_the_archive_is_there_and_nothing_that_the_pack_loads() -> None:
    files = [path.as_posix() for path in shipped_files()]
    matched = [[path for path in files if path.startswith(name) or fnmatch(path, name)] for name in left_out()]
    assert all(matched)
    loaded = (
        "__init__.py",
        "adaptor_unet/",
        "nodes/",
        "web/",
        "locales/",
        "workflows/",
        "subgraphs/",
        "pyproject.toml",
    )
    of_the_demo = re.compile(r"workflows/(api/demo_|\d\d Demo, )")
    assert [
        path for group in matched for path in group if path.startswith(loaded) and not of_the_demo.match(path)
    ] == []


def test_the_archive_lists_no_template_for_the_weights_that_it_does_not_hold() -> None:
    templates = [path for path in handed_out() if path.parts[0] in ("workflows", "subgraphs")]
    assert len([path for path in templates if path.suffix == ".json"]) > 15
    assert [path for path in templates if path.suffix == ".json" and "magicvideo_demo" in read(path)] == []
    assert [path for path in templates if "demo" in path.stem.lower()] == []
