"""One table of all benchmarks and experiments: means over seeds, differences with intervals, published figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cusa.annotations.tables import skipped_rows
from cusa.benchmarks import outcomes_file
from cusa.common.files import atomic_file, made_again, read_json
from cusa.common.progress import stopwatch
from cusa.report.statistics import difference_intervals, mean_and_spread
from cusa.report.tables import benchmark_tables, to_latex, to_markdown

log = logging.getLogger(__name__)
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
        ("undefined", pa.string()),
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
    """Collect the JSON files of benchmarks (`results`) into one Parquet table, one Markdown page and LaTeX tables.

    Differences are to the experiment `reference`, if it is among the results. Their 95 % intervals come from the
    {benchmark}.queries.npz beside each JSON; see `difference_intervals`. `left_out` gives the reason, by name, of
    everything that could not be scored.
    """
    done = stopwatch(log)
    contents = {Path(path): read_json(path, made_again(path)) for path in results}
    rows = summary_rows(contents.values())
    if reference is not None:
        add_differences(rows, _intervals(contents, reference), reference)
    notes = notes_of_runs(contents.values())
    with atomic_file(parquet) as temporary:
        metadata = {"left_out": json.dumps(dict(left_out or {})), "notes": json.dumps(notes)}
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata)), temporary)
    tables = benchmark_tables(rows, left_out or {})
    skipped = skipped_rows(Path(annotations))
    with atomic_file(markdown) as temporary:
        temporary.write_text(to_markdown(tables, skipped, left_out or {}, notes), encoding="utf-8")
    with atomic_file(latex) as temporary:
        temporary.write_text(to_latex(tables), encoding="utf-8")
    runs = {(each["experiment"], each["seed"]) for each in contents.values()}
    done(f"{len(contents):,} results of {len(runs):,} runs in {len(rows):,} rows and {len(tables):,} tables")


def summary_rows(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each benchmark, data set, metric and experiment, in the order of the results.

    Each of `results` is the content of a benchmark's JSON file. A row has the columns of SCHEMA except the differences.
    Mean and spread are over the seeds that define the metric, and None if none does. `undefined` gives the reasons.
    """
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        for metric in result["metrics"]:
            grouped.setdefault((result["benchmark"], metric, result["experiment"]), []).append(result)
    rows = []
    for (benchmark, metric, experiment), members in grouped.items():
        data, _, name = metric.rpartition("/")
        values = [member["metrics"][metric] for member in members]
        queries, gallery = members[0].get("sizes", {}).get(data, (members[0]["n_queries"], members[0]["n_gallery"]))
        rows.append(
            {
                "dataset": members[0]["dataset"],
                "benchmark": benchmark,
                "data": data,
                "metric": name,
                "experiment": experiment,
                **mean_and_spread([value for value in values if value is not None]),
                "seeds": [member["seed"] for member in members],
                "values": values,
                "published": members[0].get("published", {}).get(metric),
                "n_queries": queries,
                "n_gallery": gallery,
                "protocol": members[0]["protocol"],
                "undefined": _undefined(members, metric),
            }
        )
    return rows


def _undefined(members: Sequence[Mapping[str, Any]], metric: str) -> str | None:
    """Why the data do not define a metric, for each seed that lacks it; None if all seeds define it."""
    seeds: dict[str, list[str]] = {}
    for member in members:
        if member["metrics"][metric] is None:
            reason = member.get("undefined", {}).get(metric, "no reason was given")
            seeds.setdefault(reason, []).append(str(member["seed"]))
    return "; ".join(f"{reason} (seed {', '.join(of_seeds)})" for reason, of_seeds in seeds.items()) or None


def notes_of_runs(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The notes of runs about their captions: each sentence once, with the names of its experiments."""
    experiments: dict[str, list[str]] = {}
    for result in results:
        for note in result.get("notes", []):
            if result["experiment"] not in (named := experiments.setdefault(note, [])):
                named.append(result["experiment"])
    return {note: ", ".join(named) for note, named in experiments.items()}


Intervals = Mapping[tuple[str, str, str], tuple[float, float]]


def _intervals(results: Mapping[Path, Mapping[str, Any]], reference: str) -> Intervals:
    """The intervals of differences to `reference`, by benchmark, experiment and metric."""
    runs: dict[str, dict[str, list[Path]]] = {}
    for path, content in results.items():
        paths = runs.setdefault(content["benchmark"], {}).setdefault(content["experiment"], [])
        paths.append(path.with_suffix(".queries.npz"))
    intervals = {}
    for benchmark, experiments in runs.items():
        # One benchmark at a time, so that memory holds the outcomes of one.
        statistics = {
            name: [outcomes_file.load(path) if path.is_file() else {} for path in paths]
            for name, paths in experiments.items()
        }
        for (experiment, metric), interval in difference_intervals(statistics, reference).items():
            intervals[benchmark, experiment, metric] = interval
    return intervals


def add_differences(rows: Sequence[dict[str, Any]], intervals: Intervals, reference: str) -> None:
    """Add to `rows` the difference of each mean to that of the experiment `reference`, and its interval, if any.

    The difference is in the unit of the metric, and missing if one of the means is. `intervals` has (low, high) by
    benchmark, experiment and metric.
    """
    means = {(row["benchmark"], row["data"], row["metric"]): row for row in rows if row["experiment"] == reference}
    for row in rows:
        other = means.get((row["benchmark"], row["data"], row["metric"]))
        if other is None or row["experiment"] == reference:
            continue
        row["reference"] = reference
        if row["mean"] is None or other["mean"] is None:
            continue
        row["difference"] = row["mean"] - other["mean"]
        metric = f"{row['data']}/{row['metric']}".lstrip("/")
        if interval := intervals.get((row["benchmark"], row["experiment"], metric)):
            row["difference_low"], row["difference_high"] = interval
