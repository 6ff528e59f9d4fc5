"""The ablation as one picture: a line for each row, a pale dot for each seed and a dark one for their mean."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

LABELS, PANEL, GAP, LINE, TOP, BOTTOM = 250, 240, 40, 26, 70, 34
INK, GRID, PALE, DARK, MARK = "#1b1530", "#d9d5ea", "#b9a9f0", "#4c35a8", "#e07a3f"
Result = dict[str, object]


@dataclass(frozen=True)
class Panel:
    """One figure of all rows; ``ends`` are those of its axis, ``ticks`` the numbers at it."""

    title: str
    hint: str
    value: Callable[[Result], float]
    ends: tuple[float, float]
    ticks: Sequence[float]
    form: str

    def place(self, value: float) -> float:
        """Pixels from the panel's left edge; what lies beyond an end is drawn at it."""
        low, high = self.ends
        return PANEL * (min(max(value, low), high) - low) / (high - low)


PANELS = (
    Panel(
        "high-noise loss, x 1000",
        "less is better",
        lambda result: 1000 * result["val_high"],
        (7, 15),
        (7, 9, 11, 13, 15),
        "{:g}",
    ),
    Panel(
        "clips that move as asked",
        "more is better",
        lambda result: 100 * result["right"],
        (0, 100),
        (0, 25, 50, 75, 100),
        "{:g} %",
    ),
)


def picture(names: Sequence[str], results: Sequence[Result], compared: str) -> str:
    """SVG.  ``names`` are the rows from above; a line marks the mean of the row that others are compared with."""
    shown = [name for name in names if any(result["row"] == name for result in results)]
    width, below = LABELS + len(PANELS) * (PANEL + GAP), TOP + LINE * len(shown)
    parts = [_text(LABELS - 14, TOP + LINE * (at + 0.68), name, "end") for at, name in enumerate(shown)]
    for at, panel in enumerate(PANELS):
        left = LABELS + at * (PANEL + GAP)
        parts += _axis(panel, left, below)
        found = {name: [panel.value(result) for result in results if result["row"] == name] for name in shown}
        if compared in found:
            x = left + panel.place(statistics.fmean(found[compared]))
            parts.append(_line(x, TOP, x, below, MARK, "4 3"))
        for line, values in enumerate(found.values()):
            y = TOP + LINE * (line + 0.5)
            parts += [_dot(left + panel.place(value), y, 4, PALE) for value in values]
            parts.append(_dot(left + panel.place(statistics.fmean(values)), y, 5, DARK))
    height = below + BOTTOM
    opened = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif">'
    )
    back = f'<rect width="{width}" height="{height}" rx="10" fill="#f6f5fb"/>'
    return "\n".join([opened, back, *parts, "</svg>", ""])


def save_picture(path: Path, names: Sequence[str], results: Sequence[Result], compared: str) -> None:
    path.write_text(picture(names, results, compared), encoding="utf-8")


def _axis(panel: Panel, left: float, below: float) -> list[str]:
    parts = [_text(left, 26, panel.title, "start", bold=True), _text(left, 46, panel.hint, "start")]
    for tick in panel.ticks:
        x = left + panel.place(tick)
        parts += [_line(x, TOP, x, below, GRID), _text(x, below + 20, panel.form.format(tick), "middle")]
    return parts


def _text(x: float, y: float, words: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="14" fill="{INK}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
    )


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" stroke="{colour}"{dashed}/>'


def _dot(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>'
