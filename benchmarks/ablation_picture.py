"""The ablation as one picture: a line for each row, a pale dot for each seed and a dark one for their mean."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

INK, GRID, PALE, DARK, MARK, PAPER = "#1b1530", "#d9d5ea", "#b9a9f0", "#4c35a8", "#e07a3f", "#f6f5fb"
# Text stays text, and the same figures make the same file.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "ablation", "font.family": "sans-serif", "font.size": 10}
STYLE |= {"text.color": INK, "xtick.color": INK, "ytick.color": INK}
Result = dict[str, object]


@dataclass(frozen=True)
class Panel:
    """One figure of all rows; ``ticks`` are the numbers at its axis, the first and the last of them its ends."""

    title: str
    value: Callable[[Result], float]
    ticks: Sequence[float]
    form: str

    def place(self, value: float) -> float:
        """Where a value is drawn: what lies beyond an end, at it."""
        return min(max(value, self.ticks[0]), self.ticks[-1])


PANELS = (
    Panel(
        "high-noise loss, x 1000\n(less is better)",
        lambda result: 1000 * result["val_high"],
        (7, 9, 11, 13, 15),
        "{x:g}",
    ),
    Panel(
        "clips that move as asked\n(more is better)",
        lambda result: 100 * result["right"],
        (0, 25, 50, 75, 100),
        "{x:g} %",
    ),
)


def picture(names: Sequence[str], results: Sequence[Result], compared: str) -> Figure:
    """``names`` are the rows from above; a line marks the mean of the row that others are compared with."""
    shown = [name for name in names if any(result["row"] == name for result in results)]
    figure = Figure(figsize=(8.1, 1.1 + 0.26 * len(shown)), facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)
    for panel, axes in zip(PANELS, figure.subplots(1, len(PANELS), sharey=True), strict=True):
        found = {name: [panel.value(result) for result in results if result["row"] == name] for name in shown}
        means = {name: statistics.fmean(values) for name, values in found.items()}
        for line, name in enumerate(shown):
            places = [panel.place(value) for value in found[name]]
            axes.scatter(places, [line] * len(places), s=30, color=PALE, clip_on=False, zorder=2)
        places = [panel.place(value) for value in means.values()]
        axes.scatter(places, range(len(places)), s=45, color=DARK, clip_on=False, zorder=3)
        if compared in means:
            axes.axvline(panel.place(means[compared]), color=MARK, linestyle="--", linewidth=1, zorder=1)
        axes.set_title(panel.title, loc="left", fontsize="medium")
        axes.set_xlim(panel.ticks[0], panel.ticks[-1])
        axes.set_xticks(panel.ticks)
        axes.xaxis.set_major_formatter(panel.form)
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="x", color=GRID)
        axes.tick_params(length=0)
        axes.set_facecolor(PAPER)
        axes.spines[:].set_visible(False)
    return figure


def save_picture(path: Path, names: Sequence[str], results: Sequence[Result], compared: str) -> None:
    """An SVG file of ``picture``."""
    with matplotlib.rc_context(STYLE):
        picture(names, results, compared).savefig(path, format="svg", metadata={"Date": None})
