"""The trials of a sweep as tables, and the best of them as an overlay of the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cusa.common.files import atomic_file
from cusa.common.workflow_files import head_of_file, workflow_command
from cusa.config.files import yaml_text
from cusa.errors import DataError
from cusa.sweep.space import nested
from cusa.sweep.study import Study, TrialResult, best_of

TABLE, MARKDOWN, BEST = SUMMARY = ("trials.parquet", "trials.md", "best.yaml")
SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("number", pa.int64()),
        ("state", pa.string()),
        ("values", pa.string()),
        ("score", pa.float64()),
        ("best", pa.bool_()),
        ("seeds", pa.list_(pa.int64())),
        ("r_means", pa.list_(pa.float64())),
        ("selected_epochs", pa.list_(pa.int64())),
        ("epochs_trained", pa.int64()),
        ("epochs", pa.int64()),
        ("seconds", pa.float64()),
        ("same_as", pa.string()),
        ("reason", pa.string()),
    ]
)


def summarise_sweep(folder: str | Path, trials: Sequence[str]) -> None:
    """Write trials.parquet, trials.md and best.yaml to the folder of a sweep, of those of its trials that are named.

    trials.parquet has a row per trial, the best first; `values` is JSON, `score` the mean r_mean of the validation
    split in per cent. Raises DataError if a trial has not ended, or none was trained to its end.
    """
    study = Study(Path(folder))
    results = [study.trial(name).result for name in trials]
    ended = [result for result in results if result is not None]
    if missing := [name for name, result in zip(trials, results, strict=True) if result is None]:
        raise DataError(
            f"{len(missing)} of {len(trials)} trials of {folder} have not ended, the first {missing[0]}; run "
            f"`{workflow_command('sweep')}` to train them."
        )
    rows = table_rows(ended)
    overlay = overlay_of(ended, study)
    with atomic_file(study.folder / TABLE) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
    with atomic_file(study.folder / MARKDOWN) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in markdown_lines(rows)), encoding="utf-8")
    with atomic_file(study.folder / BEST) as temporary:
        temporary.write_text(overlay, encoding="utf-8")


def table_rows(results: Iterable[TrialResult]) -> list[dict[str, Any]]:
    """A row with the columns of SCHEMA for each trial: finished ones first, of these the best."""
    results = list(results)
    best = best_of(results)
    order = sorted(
        results, key=lambda each: (each.state != "finished", each.score is None, -(each.score or 0.0), each.number)
    )
    return [
        {
            "trial": result.trial,
            "number": result.number,
            "state": result.state,
            "values": json.dumps(result.values),
            "score": result.score,
            "best": best is not None and result.trial == best.trial,
            "seeds": [seed.seed for seed in result.seeds],
            "r_means": [seed.r_mean for seed in result.seeds],
            "selected_epochs": [seed.selected_epoch for seed in result.seeds],
            "epochs_trained": sum(len(seed.curve) for seed in result.seeds),
            "epochs": result.epochs,
            "seconds": 0.0 if result.same_as else result.seconds,
            "same_as": result.same_as,
            "reason": result.reason,
        }
        for result in order
    ]


def keys_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys that vary, in the order of the configuration."""
    return list(dict.fromkeys(key for row in rows for key in json.loads(row["values"])))


def shown(value: Any) -> str:
    """A value of a trial, short enough for a table."""
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def state_of(row: Mapping[str, Any]) -> str:
    """How a trial ended, for a table."""
    if row["same_as"]:
        return f"same as {row['same_as']}"
    if row["state"] == "stopped":
        return f"stopped after {row['epochs_trained']} of {row['epochs'] * max(len(row['seeds']), 1)} epochs"
    return str(row["state"])


def markdown_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the trials as Markdown; the best is bold."""
    keys = keys_of(rows)
    header = ["trial", *(f"`{key}`" for key in keys), "r_mean on val", "epoch", "state"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in rows:
        values = json.loads(row["values"])
        score = "" if row["score"] is None else f"{row['score']:.2f}"
        epochs = ", ".join(str(epoch + 1) for epoch in row["selected_epochs"])
        cells = [row["trial"], *(shown(values.get(key)) for key in keys), score, epochs, state_of(row)]
        lines.append(f"| {' | '.join(f'**{cell}**' if row['best'] and cell else cell for cell in cells)} |")
    return lines


def overlay_of(results: Iterable[TrialResult], study: Study) -> str:
    """The values of the best trial as the YAML of an overlay. Raises DataError if none was trained to its end."""
    results = list(results)
    best = best_of(results)
    if best is None:
        reasons = sorted({result.reason for result in results if result.reason})
        why = f" ({reasons[0]})" if reasons else ""
        raise DataError(
            f"none of the {len(results)} trials of {study.folder} was trained to its end{why}; change `sweep.space`."
        )
    seeds = ", ".join(str(seed.seed) for seed in best.seeds)
    head = head_of_file(
        f"The best of {len(results)} trials of {study.folder}: trial {best.trial}, r_mean {best.score:.2f} on the",
        f"validation split (seed {seeds}). Written by cusa; give it to --configfile after the file with the sweep.",
    )
    return head + yaml_text(nested(best.values))
