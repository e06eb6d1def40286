"""Curves of the training as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from cusa.common.files import read_parquet
from cusa.config.losses import LOSS_TERMS
from cusa.runs.record import HISTORY, trained_again

# Text and axes are drawn in this colour, which nothing else has. In the page it is replaced by the colour of the text.
INK = "#010203"
# Okabe and Ito's palette: colour-blind readers can distinguish it, on light and on dark ground.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
FIGURES = ("validation", "losses", "temperatures")
History = Sequence[Mapping[str, Any]]


def read_histories(runs: Mapping[str, Sequence[str | Path]]) -> dict[str, dict[str, History]]:
    """The rows of each history.parquet by experiment and by seed, of what was trained here; imported runs have none.

    `runs` gives the run folders of each experiment, one a seed. The seeds are called as the folders, `seed23`.
    """
    histories: dict[str, dict[str, History]] = {}
    for name, paths in runs.items():
        for path in map(Path, paths):
            rows = read_parquet(path / HISTORY, trained_again(path / HISTORY)).to_pylist()
            if any(row["kind"] == "step" for row in rows):
                histories.setdefault(name, {})[path.name] = rows
    return histories


def first_seeds(histories: Mapping[str, Mapping[str, History]]) -> dict[str, History]:
    """The rows of the first seed of each experiment."""
    return {name: next(iter(seeds.values())) for name, seeds in histories.items()}


def draw_figures(histories: Mapping[str, History]) -> dict[str, str]:
    """The SVG of each of FIGURES from the histories of the experiments."""
    recalls = {"r_mean": "mean recall, %", "t2i_r10": "text-to-image R@10, %", "i2t_r10": "image-to-text R@10, %"}
    losses = {f"loss_{name}": title for name, title in LOSS_TERMS.items()}
    return {
        "validation": draw_history(histories, "epoch", recalls),
        "losses": draw_history(histories, "step", losses),
        "temperatures": draw_temperatures(histories),
    }


def draw_history(histories: Mapping[str, History], kind: str, columns: Mapping[str, str]) -> str:
    """The SVG of one panel for each column, with one line for each experiment.

    `kind` is that of the rows that are drawn, `epoch` or `step`; `columns` gives the title of each column.
    """
    figure, panels = _panels(len(columns))
    for (column, title), axes in zip(columns.items(), panels, strict=True):
        for colour, (name, history) in zip(_cycle(), histories.items(), strict=False):
            rows = [row for row in history if row["kind"] == kind and row.get(column) is not None]
            if kind == "step" and not any(row[column] for row in rows):
                continue
            steps = steps_per_epoch(history)
            axes.plot([when(row, steps) for row in rows], [row[column] for row in rows], color=colour, label=name)
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel("epoch", color=INK, fontsize=9)
    lines = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=9, labelcolor=INK
    )
    return svg_of(figure)


def draw_temperatures(histories: Mapping[str, History]) -> str:
    """The SVG of one panel for each experiment, with one line for each temperature, over the epochs."""
    figure, panels = _panels(len(histories), height=3.2)
    # Without histories, the only panel stays empty.
    for (name, history), axes in zip(histories.items(), panels, strict=False):
        rows, steps = [row for row in history if row["kind"] == "step"], steps_per_epoch(history)
        names = [key for key in rows[0] if key.startswith("temperature_") and rows[0][key] is not None]
        for colour, key in zip(_cycle(), names, strict=False):
            label = key.removeprefix("temperature_").replace("_", " ")
            axes.plot([when(row, steps) for row in rows], [row[key] for row in rows], color=colour, label=label)
        axes.set_title(name, color=INK, fontsize=10)
        axes.set_xlabel("epoch", color=INK, fontsize=9)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    return svg_of(figure)


def steps_per_epoch(history: History) -> int:
    """The number of steps of an epoch: the highest in a history."""
    steps: int = max(entry["step"] for entry in history)
    return steps


def when(row: Mapping[str, Any], steps: int) -> float:
    """The time of a row in epochs of `steps` steps: a step is inside its epoch, an epoch's row is at its end."""
    return float(row["epoch"]) + (row["step"] / steps if row["kind"] == "step" else 1.0)


def _panels(count: int, height: float = 2.8) -> tuple[Any, list[Any]]:
    """A figure with `count` panels side by side, at least one; `height` is in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    count = max(count, 1)
    figure = Figure(figsize=(3.6 * count, height), layout=ConstrainedLayoutEngine(w_pad=0.12))
    figure.patch.set_alpha(0)
    panels = list(np.atleast_1d(figure.subplots(1, count)))
    for axes in panels:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=8)
        axes.grid(alpha=0.2, color=INK)
        for side, spine in axes.spines.items():
            spine.set_color(INK)
            spine.set_visible(side in ("left", "bottom"))
    return figure, panels


def _cycle() -> list[str]:
    """Colours for more lines than COLOURS has."""
    return list(COLOURS) * 4


def svg_of(figure: Any, alternative: str | None = None) -> str:
    """The figure as SVG, with text as text and the same bytes for the same figure.

    `alternative` is the text for screen readers; None gives the values at both ends of the figure's lines.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cusa"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    said = escape(_ends_of_lines(figure) if alternative is None else alternative, {'"': "&quot;"})
    return buffer.getvalue().replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1)


def _ends_of_lines(figure: Any) -> str:
    """For each panel, the first and the last value of each line with a name."""
    panels = []
    for axes in figure.axes:
        values = {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in axes.lines}
        named = {label: y[np.isfinite(y)] for label, y in values.items() if not label.startswith("_")}
        ends = [f"{label} from {y[0]:.4g} to {y[-1]:.4g}" for label, y in named.items() if y.size]
        panels.append(f"{axes.get_title()}: {', '.join(ends) or 'no values'}.")
    return " ".join(["Line charts over the epochs.", *panels])


def inline_svg(svg: str) -> str:
    """The content of an SVG file as an element of an HTML page, in the colour of the page's text."""
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
