"""All benchmarks x experiments in one table: spread over seeds, differences, published figures beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cusa.annotations.tables import PROBLEMS
from cusa.common.files import read_json, whole_file
from cusa.report.statistics import mean_and_spread, paired_interval
from cusa.report.tables import benchmark_tables, to_latex, to_markdown

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("benchmark", pa.string()),
        ("data", pa.string()),
        ("metric", pa.string()),
        ("experiment", pa.string()),
        ("mean", pa.float64()),
        ("std", pa.float64()),
        ("seeds", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
        ("reference", pa.string()),
        ("difference", pa.float64()),
        ("difference_low", pa.float64()),
        ("difference_high", pa.float64()),
        ("published", pa.float64()),
        ("n_queries", pa.int64()),
        ("n_gallery", pa.int64()),
        ("protocol", pa.string()),
    ]
)


def summarise(
    results: Sequence[str | Path],
    annotations: str | Path,
    parquet: str | Path,
    markdown: str | Path,
    latex: str | Path,
    reference: str | None = None,
    left_out: Mapping[str, str] | None = None,
) -> None:
    """Collect the benchmarks' JSON files into one Parquet table, one Markdown page and LaTeX tables.

    Differences are to the experiment `reference`, where there is one; their 95 % intervals are by a paired bootstrap
    over queries, from the {benchmark}.queries.npz beside each JSON. `left_out` says, by name, what could not be scored.
    """
    contents = {Path(path): read_json(path) for path in results}
    rows = summary_rows(contents.values())
    add_differences(rows, _outcomes(contents), reference)
    with whole_file(parquet) as temporary:
        metadata = {"left_out": json.dumps(dict(left_out or {}))}
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata)), temporary)
    tables = benchmark_tables(rows, left_out or {})
    skipped = read_json(Path(annotations) / PROBLEMS)["skipped"]
    with whole_file(markdown) as temporary:
        temporary.write_text(to_markdown(tables, skipped, left_out or {}), encoding="utf-8")
    with whole_file(latex) as temporary:
        temporary.write_text(to_latex(tables), encoding="utf-8")


def summary_rows(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a (benchmark, data, metric, experiment), in the order of the results."""
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        for metric in result["metrics"]:
            grouped.setdefault((result["benchmark"], metric, result["experiment"]), []).append(result)
    rows = []
    for (benchmark, metric, experiment), members in grouped.items():
        data, _, name = metric.rpartition("/")
        queries, gallery = members[0].get("sizes", {}).get(data, (members[0]["n_queries"], members[0]["n_gallery"]))
        rows.append(
            {
                "dataset": members[0]["dataset"],
                "benchmark": benchmark,
                "data": data,
                "metric": name,
                "experiment": experiment,
                **mean_and_spread([member["metrics"][metric] for member in members]),
                "seeds": [member["seed"] for member in members],
                "values": [member["metrics"][metric] for member in members],
                "published": members[0].get("published", {}).get(metric),
                "n_queries": queries,
                "n_gallery": gallery,
                "protocol": members[0]["protocol"],
            }
        )
    return rows


Outcomes = dict[tuple[str, str], dict[str, np.ndarray]]


def _outcomes(results: Mapping[Path, Mapping[str, Any]]) -> Outcomes:
    """What each query contributes, by (benchmark, experiment) and metric, mean over seeds; from beside each result."""
    found: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
    for path, about in results.items():
        if (queries := path.with_suffix(".queries.npz")).is_file():
            with np.load(queries, allow_pickle=False) as arrays:
                found.setdefault((about["benchmark"], about["experiment"]), []).append(dict(arrays))
    return {
        key: {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in seeds[0]}
        for key, seeds in found.items()
    }


def add_differences(rows: Sequence[dict[str, Any]], outcomes: Outcomes, reference: str | None) -> None:
    """Complete `rows` by the difference of each mean to the reference's, with its interval where queries have outcomes.

    Medians, sums and correlations are no means over queries; their differences have no interval.
    """
    means = {(row["benchmark"], row["data"], row["metric"]): row for row in rows if row["experiment"] == reference}
    for row in rows:
        other = means.get((row["benchmark"], row["data"], row["metric"]))
        if other is None or row["experiment"] == reference:
            continue
        row |= {"reference": reference, "difference": row["mean"] - other["mean"]}
        metric = f"{row['data']}/{row['metric']}".lstrip("/")
        first, second = (
            outcomes.get((row["benchmark"], name), {}).get(metric) for name in (reference or "", row["experiment"])
        )
        if first is not None and second is not None and first.shape == second.shape:
            _, row["difference_low"], row["difference_high"] = paired_interval(first, second)
