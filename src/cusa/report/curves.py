"""The training curves of all runs for the page's script, thinned to a number of points that one page can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from cusa.config.losses import LOSS_TERMS
from cusa.report.figures import COLOURS, History, steps_per_epoch, when

# The number of points of all runs in one chart; a run has at least FEWEST and at most MOST.
POINTS, FEWEST, MOST = 8000, 60, 500
SIGNIFICANT_DIGITS = 5
NO_CURVES = frozenset({"kind", "epoch", "step"})
# The quantities that are shown first, and labels for names that do not explain themselves.
FIRST = {"epoch": "r_mean", "step": "loss"}
LABELS = {
    "r_mean": "mean recall, %",
    "rsum": "sum of the six recalls",
    "loss": "loss, all together",
    **{f"loss_{name}": f"loss: {title}" for name, title in LOSS_TERMS.items()},
    "left_out_share": "share of the negatives left out",
    "lr": "learning rate",
    "samples_per_second": "pairs per second",
    "images_per_second": "images per second",
    "model_flops_per_second": "model FLOP/s",
    "mfu": "model FLOPs utilisation",
    "memory_gib": "memory, GiB",
    "data_wait_share": "share of the time spent waiting for data",
    "seconds": "seconds of the epoch",
    "gpu_memory_gib": "GPU memory, GiB",
    "gpu_utilisation": "GPU load, %",
}


def curves(histories: Mapping[str, Mapping[str, History]]) -> list[dict[str, Any]]:
    """One chart of the values after each epoch, and one of the values at training steps.

    `histories` gives the rows of each run by experiment and then by seed. A chart has `title`, the names and labels of
    its `quantities`, and `runs`: `label`, `colour`, the times `x` in epochs, and `y` by quantity, in which null
    stands for no value.
    """
    charts = (("epoch", "After each epoch, on the split that selects"), ("step", "While training"))
    return [chart for kind, title in charts if (chart := _chart(histories, kind, title))["runs"]]


def _chart(histories: Mapping[str, Mapping[str, History]], kind: str, title: str) -> dict[str, Any]:
    most = min(MOST, max(FEWEST, POINTS // max(1, sum(map(len, histories.values())))))
    runs: list[dict[str, Any]] = []
    for number, (experiment, seeds) in enumerate(histories.items()):
        for seed, history in seeds.items():
            rows = thinned([row for row in history if row["kind"] == kind], most)
            if rows:
                steps = steps_per_epoch(history)
                label = experiment if len(seeds) == 1 else f"{experiment}, {seed.replace('seed', 'seed ')}"
                runs.append(
                    {
                        "label": label,
                        "colour": COLOURS[number % len(COLOURS)],
                        "x": [_rounded(when(row, steps)) for row in rows],
                        "y": _columns(rows),
                    }
                )
    found: set[str] = {name for run in runs for name in run["y"]}
    names = sorted(found, key=lambda name: (name != FIRST[kind], _order(name)))
    return {"title": title, "quantities": [[name, label_of(name)] for name in names], "runs": runs}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """The numbers of rows by name. Columns that are 0 everywhere, such as a loss that is switched off, are left out."""
    names = [name for name in rows[0] if name not in NO_CURVES]
    columns = {name: [_rounded(row.get(name)) for row in rows] for name in names}
    return {name: values for name, values in columns.items() if any(values)}


def thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """At most `most` rows at equal distances, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def label_of(name: str) -> str:
    """A quantity in words."""
    if name in LABELS:
        return LABELS[name]
    if name.startswith("temperature_"):
        return f"temperature: {name.removeprefix('temperature_').replace('_', ' ')}"
    for way, words in (("i2t_", "image-to-text"), ("t2i_", "text-to-image")):
        if name.startswith(way):
            rest = name.removeprefix(way)
            return f"{words} R@{rest[1:]}, %" if rest[1:].isdigit() else f"{words} {rest.replace('_', ' ')}"
    return name.replace("_", " ")


def _order(name: str) -> tuple[int, str]:
    groups = ("r_mean", "rsum", "t2i_r", "i2t_r", "t2i_", "i2t_", "loss", "temperature", "lr", "samples")
    return next((place for place, group in enumerate(groups) if name.startswith(group)), len(groups)), name


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def library() -> dict[str, str]:
    """The plotting library as text: its `script`, its `style`, its `licence`, and the `drawing` of our charts."""
    folder = files("cusa.report")
    names = {
        "script": "uplot/uPlot.iife.min.js",
        "style": "uplot/uPlot.min.css",
        "licence": "uplot/LICENSE",
        "drawing": "curves.js",
    }
    return {name: folder.joinpath(path).read_text(encoding="utf-8") for name, path in names.items()}
