"""Results of comparisons that train for long: a line of JSON for each, kept once it is there, and their tables."""

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

Result = dict[str, object]
# Of a figure: its title, its name in a result, and how it is written; shares of 0 to 1 are written as percent.
Column = tuple[str, str, str]


def read_results(path: Path) -> list[Result]:
    """What was measured before; nothing where there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def keep_result(path: Path, result: Result) -> None:
    """Writes one more line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def measure_missing(path: Path, wanted: Iterable[Result], measure: Callable[..., Result]) -> list[Result]:
    """All results of a file, and a new one, kept there at once, for each of the ``wanted`` of which it has none.

    What is wanted are values that a result has, and the arguments of ``measure`` by their names.
    """
    results = read_results(path)
    for values in wanted:
        if not any(all(done.get(name) == value for name, value in values.items()) for done in results):
            results.append(measure(**values))
            keep_result(path, results[-1])
    return results


def spread(values: list[float], form: str) -> str:
    """The mean, and behind it the least and the most where they differ as they are written."""
    if not values:
        return "-"
    least, mean, most = (form.format(value) for value in (min(values), statistics.fmean(values), max(values)))
    return mean if least == most else f"{mean} ({least} to {most})"


def arms_table(arms: Iterable[str], columns: list[Column], results: list[Result]) -> str:
    """Markdown: a row for each ``arm`` of which there are results, with how many there are, and a spread a column."""
    lines = [f"| | {' | '.join(title for title, _, _ in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for arm in arms:
        found = [result for result in results if result["arm"] == arm]
        if found:
            cells = (
                spread([(100 if "%" in form else 1) * result[name] for result in found if name in result], form)
                for _, name, form in columns
            )
            lines.append(f"| {arm} ({len(found)}) | {' | '.join(cells)} |")
    return "\n".join(lines)
