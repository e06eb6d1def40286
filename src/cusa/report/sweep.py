"""The part of the page about a sweep: the table of its trials, and all of them as lines across parallel axes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cusa.common.files import read_parquet
from cusa.report.figures import COLOURS, INK, svg_of
from cusa.sweep.summary import BEST, keys_of, shown, state_of

FIGURE = "sweep"
SCORE = "r_mean on val, %"
LISTED = 6  # different values of a key up to which they stand on its axis at equal distances
DECADES = 1.3  # a key whose largest value is 10 to this power times its smallest has a logarithmic axis
Row = Mapping[str, Any]


def read_trials(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a trials.parquet."""
    rows: list[dict[str, Any]] = read_parquet(path).to_pylist()
    return rows


def sweep_section(path: str | Path) -> dict[str, Any]:
    """A sweep for the page: its `keys`, `rows` of texts, the counts of `states`, and the overlay `best`."""
    rows = read_trials(path)
    keys = keys_of(rows)
    states = [row["state"] for row in rows]
    return {
        "name": Path(path).parent.name,
        "keys": keys,
        "rows": [_table_row(row, keys) for row in rows],
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "minutes": sum(row["seconds"] for row in rows) / 60,
        "best": (Path(path).parent / BEST).read_text(encoding="utf-8"),
    }


def _table_row(row: Row, keys: Sequence[str]) -> dict[str, Any]:
    values = json.loads(row["values"])
    return {
        "trial": row["trial"],
        "values": [shown(values.get(key)) for key in keys],
        "score": "" if row["score"] is None else f"{row['score']:.2f}",
        "spread": ", ".join(f"{value:.2f}" for value in row["r_means"]) if len(row["r_means"]) > 1 else "",
        "epochs": ", ".join(str(epoch + 1) for epoch in row["selected_epochs"]),
        "minutes": row["seconds"] / 60,
        "state": state_of(row),
        "reason": row["reason"] or "",
        "best": row["best"],
    }


def draw_trials(rows: Sequence[Row]) -> str:
    """The SVG of parallel coordinates: an axis per key and one for the score, a line per trial that has a score.

    The best is orange, the better half of the others blue, and trials that were stopped are dashed.
    """
    from matplotlib.figure import Figure

    scored = [row for row in rows if row["score"] is not None and not row["same_as"]]
    keys = keys_of(rows)
    columns = [[json.loads(row["values"]).get(key) for row in scored] for key in keys]
    columns.append([row["score"] for row in scored])
    figure = Figure(figsize=(1.2 + 1.9 * len(columns), 3.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.3, len(columns) - 0.55), ylim=(-0.08, 1.16))
    heights = []
    for position, (name, column) in enumerate(zip([*keys, SCORE], columns, strict=True)):
        places, ticks = _places(column, listed=name != SCORE)
        heights.append(places)
        _draw_axis(axes, position, name, ticks)
    middle = float(np.median([row["score"] for row in scored])) if scored else 0.0
    # The best is drawn last, over the others.
    for number in sorted(range(len(scored)), key=lambda number: scored[number]["score"]):
        row = scored[number]
        colour, width, opacity = INK, 1.0, 0.35
        if row["best"]:
            colour, width, opacity = COLOURS[1], 2.8, 1.0
        elif row["score"] >= middle:
            colour, width, opacity = COLOURS[0], 1.4, 0.8
        style = "--" if row["state"] == "stopped" else "-"
        line = [places[number] for places in heights]
        axes.plot(range(len(columns)), line, color=colour, linewidth=width, alpha=opacity, linestyle=style)
    best = next((f"; the best reached {row['score']:.4g} with {row['values']}" for row in scored if row["best"]), "")
    return svg_of(figure, f"Lines of {len(scored)} trials across {', '.join(keys)} to their {SCORE}{best}.")


def _draw_axis(axes: Any, position: int, name: str, ticks: Mapping[str, float]) -> None:
    axes.plot([position, position], [0, 1], color=INK, linewidth=1)
    # Only the end of a long key is drawn, in lines: the table has all of it.
    parts = name.split(".")
    label = ".\n".join(parts[-2:]) if len(parts) > 1 else name
    axes.text(position, 1.06, label, color=INK, fontsize=8, ha="center", va="bottom", clip_on=False)
    for text, height in ticks.items():
        axes.text(position + 0.04, height, text, color=INK, fontsize=8, ha="left", va="center")


def _places(column: Sequence[Any], listed: bool) -> tuple[list[float], dict[str, float]]:
    """The height of each value on its axis, from 0 to 1, and the heights of the texts beside the axis."""
    texts = [shown(value) for value in column]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    order = sorted(dict.fromkeys(texts), key=(lambda text: float(text)) if numeric else str)
    if not numeric or (listed and len(order) <= LISTED):
        height = {text: number / max(len(order) - 1, 1) for number, text in enumerate(order)}
        return [height[text] for text in texts], height
    values = np.asarray(column, dtype=float)
    if values.size and values.min() > 0 and np.log10(values.max() / values.min()) > DECADES:
        values = np.log10(values)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    places = (values - low) / ((high - low) or 1.0)
    is_log = values.size > 0 and not np.array_equal(values, np.asarray(column, dtype=float))
    ends = {0.0: low, 0.5: (low + high) / 2, 1.0: high}
    return places.tolist(), {f"{10**value if is_log else value:.3g}": height for height, value in ends.items()}
