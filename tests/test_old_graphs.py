"""Every released version has its workflows kept, in both forms.  No host is needed."""

import re
from pathlib import Path

from old_graphs import GRAPHS, VERSIONS

ROOT = Path(__file__).resolve().parent.parent


def test_every_released_version_has_its_graphs_kept() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", changelog, re.MULTILINE)
    kept = {version.name for version in VERSIONS}
    assert kept and set(released) <= kept, "copy workflows/ to tests/workflows/VERSION, without the pictures"


def test_every_kept_graph_has_both_forms() -> None:
    for version in VERSIONS:
        on_page = {path.stem for path in version.glob("*.json")}
        assert on_page == {path.stem for path in (version / "api").glob("*.json")}
    assert GRAPHS
