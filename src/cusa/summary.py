"""All benchmarks x experiments in one table, mean and spread over seeds, as Parquet and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cusa.annotations import PROBLEMS
from cusa.files import read_json, whole_file
from cusa.metrics import mean_and_spread

TITLES = {
    "itr": "Image-text retrieval",
    "eccv_caption": "Extended positives",
    "image_retrieval": "Image retrieval",
    "sts": "Semantic textual similarity",
}
METRIC_TITLES = {
    "rsum": "rsum",
    "r_mean": "mean",
    "rprecision": "R-Precision",
    "map_at_r": "mAP@R",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "median_rank": "median rank",
}
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("benchmark", pa.string()),
        ("metric", pa.string()),
        ("experiment", pa.string()),
        ("mean", pa.float64()),
        ("std", pa.float64()),
        ("seeds", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
        ("n_queries", pa.int64()),
        ("n_gallery", pa.int64()),
        ("protocol", pa.string()),
    ]
)


@dataclass(frozen=True)
class BenchmarkTable:
    """One benchmark for people: a row an experiment, a column a metric, cells as text, the best of a column marked."""

    title: str
    protocols: list[str]
    size: str
    columns: list[str]
    rows: list[tuple[str, list[tuple[str, bool]]]]


def summarise(
    results: Sequence[str | Path], annotations: str | Path, parquet: str | Path, markdown: str | Path
) -> None:
    """Collect the benchmarks' JSON files into one Parquet table and one Markdown page."""
    rows = summary_rows(read_json(path) for path in results)
    with whole_file(parquet) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
    skipped = read_json(Path(annotations) / PROBLEMS)["skipped"]
    with whole_file(markdown) as temporary:
        temporary.write_text(to_markdown(benchmark_tables(rows), skipped), encoding="utf-8")


def summary_rows(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a (benchmark, metric, experiment), in the order of the results."""
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for result in results:
        for metric in result["metrics"]:
            grouped.setdefault((result["benchmark"], metric, result["experiment"]), []).append(result)
    return [
        {
            "dataset": members[0]["dataset"],
            "benchmark": benchmark,
            "metric": metric,
            "experiment": experiment,
            **mean_and_spread([member["metrics"][metric] for member in members]),
            "seeds": [member["seed"] for member in members],
            "values": [member["metrics"][metric] for member in members],
            "n_queries": members[0]["n_queries"],
            "n_gallery": members[0]["n_gallery"],
            "protocol": members[0]["protocol"],
        }
        for (benchmark, metric, experiment), members in grouped.items()
    ]


def benchmark_tables(rows: Sequence[dict[str, Any]]) -> list[BenchmarkTable]:
    """The rows of `summary_rows` as one table a benchmark."""
    tables = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        mine = [row for row in rows if row["benchmark"] == benchmark]
        metrics = list(dict.fromkeys(row["metric"] for row in mine))
        cells = {(row["experiment"], row["metric"]): row for row in mine}
        best = {
            metric: (min if metric.endswith("median_rank") else max)(
                round(row["mean"], 1) for row in mine if row["metric"] == metric
            )
            for metric in metrics
        }
        experiments = dict.fromkeys(row["experiment"] for row in mine)
        tables.append(
            BenchmarkTable(
                title=TITLES.get(benchmark, benchmark),
                protocols=list(dict.fromkeys(f"{row['experiment']}: {row['protocol']}" for row in mine)),
                size=f"{mine[0]['n_queries']:,} queries, {mine[0]['n_gallery']:,} in the gallery",
                columns=[metric_title(metric) for metric in metrics],
                rows=[
                    (
                        experiment,
                        [
                            (_cell(row), round(row["mean"], 1) == best[metric])
                            if (row := cells.get((experiment, metric)))
                            else ("not computed", False)
                            for metric in metrics
                        ],
                    )
                    for experiment in experiments
                ],
            )
        )
    return tables


def to_markdown(tables: Sequence[BenchmarkTable], skipped: dict[str, int]) -> str:
    """The tables as GitHub Markdown, best values bold, and what was left out of the data."""
    lines = []
    for table in tables:
        lines += [f"## {table.title}", "", f"{table.size}.", ""]
        lines.append("| experiment | " + " | ".join(table.columns) + " |")
        lines.append("|---|" + "---:|" * len(table.columns))
        for experiment, cells in table.rows:
            shown = [f"**{text}**" if best else text for text, best in cells]
            lines.append(f"| {experiment} | " + " | ".join(shown) + " |")
        lines.append("")
    lines.append(skipped_sentence(skipped))
    return "\n".join(lines) + "\n"


def skipped_sentence(skipped: dict[str, int]) -> str:
    """What dataset.skip left out, counted."""
    if not skipped:
        return "Nothing was left out of the data."
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in skipped.items())
    return f"Left out of the data, as dataset.skip allows: {counts}."


def metric_title(metric: str) -> str:
    """`t2i_r10` -> `t2i R@10`."""
    direction, _, name = metric.partition("_") if metric.startswith(("i2t_", "t2i_")) else ("", "", metric)
    title = METRIC_TITLES.get(name) or (f"R@{name[1:]}" if name[1:].isdigit() else name)
    return f"{direction} {title}".strip()


def _cell(row: dict[str, Any]) -> str:
    spread = f" ± {row['std']:.1f}" if len(row["seeds"]) > 1 else ""
    return f"{row['mean']:.1f}{spread}"
