"""The summary as tables for people: Markdown, LaTeX and the report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cusa.annotations.labelled_images import ARCHIVES

TITLES = {
    "itr": "Image-text retrieval",
    "eccv_caption": "Extended positives",
    "image_retrieval": "Image retrieval",
    "sts": "Semantic textual similarity",
}


# Where several data sets are scored, one table shows this metric of each; the others are in summary.parquet.
MAIN_METRIC = {"image_retrieval": "r1", "sts": "spearman"}
DATA_TITLES = {
    **{name: archive.title for name, archive in ARCHIVES.items()},
    "folds": "mean over folds",
    "coco_1k": "COCO 1K, mean of five folds",
    "coco_5k": "COCO 5K",
    "cxc": "CxC",
    "stsb": "STS-B",
    "sickr": "SICK-R",
}


METRIC_TITLES = {
    "rsum": "rsum",
    "r_mean": "mean",
    "rprecision": "R-Precision",
    "map_at_r": "mAP@R",
    "pmrp": "PMRP",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "median_rank": "median rank",
}


Cells = list[tuple[str, bool]]


@dataclass(frozen=True)
class BenchmarkTable:
    """One benchmark for people: a row an experiment, a column a metric, cells as text, the best of a column marked.

    `differences` has a row for each experiment but the reference, `published` one for each with published figures.
    """

    title: str
    protocols: list[str]
    size: str
    columns: list[str]
    rows: list[tuple[str, Cells]]
    differences: list[tuple[str, Cells]] = field(default_factory=list)
    published: list[tuple[str, Cells]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def benchmark_tables(
    rows: Sequence[Mapping[str, Any]], left_out: Mapping[str, str] | None = None
) -> list[BenchmarkTable]:
    """The rows of `summary_rows` as one table a benchmark and data set, or one of their main metric."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        benchmark, data = row["benchmark"], row["data"]
        if data and benchmark in MAIN_METRIC:
            if row["metric"] != MAIN_METRIC[benchmark]:
                continue
            data = "*"
        grouped.setdefault((benchmark, data), []).append(row)
    everyone = list(dict.fromkeys(row["experiment"] for row in rows))
    return [_table(*key, members, everyone, left_out or {}) for key, members in grouped.items()]


def _table(
    benchmark: str, data: str, rows: list[Mapping[str, Any]], everyone: list[str], left_out: Mapping[str, str]
) -> BenchmarkTable:
    def column_of(row: Mapping[str, Any]) -> str:
        return str(row["data"] if data == "*" else row["metric"])

    columns = list(dict.fromkeys(map(column_of, rows)))
    cells = {(row["experiment"], column_of(row)): row for row in rows}
    best = {
        column: (min if column.endswith("median_rank") else max)(
            round(row["mean"], 1) for row in rows if column_of(row) == column
        )
        for column in columns
    }

    def shown(experiment: str, text: Any, mark: bool = False) -> Cells:
        found = [(cells.get((experiment, column)), column) for column in columns]
        return [
            (text(row), mark and round(row["mean"], 1) == best[column]) if row else (NOT_COMPUTED, False)
            for row, column in found
        ]

    present = [name for name in everyone if any(row["experiment"] == name for row in rows)]
    absent = {name: left_out.get(f"{name}, {benchmark}") for name in everyone if name not in present}

    def having(key: str) -> list[str]:
        return [name for name in present if any(row["experiment"] == name and row.get(key) is not None for row in rows)]

    reference = next((row["reference"] for row in rows if row.get("reference")), None)
    title = TITLES.get(benchmark, benchmark)
    if data == "*":
        title += f", {metric_title(MAIN_METRIC[benchmark])} of each data set"
    elif data:
        title += f": {data_title(data)}"
    sizes = {column_of(row): (row["n_queries"], row["n_gallery"]) for row in rows if row["data"] != "average"}
    if data == "*":
        size = "Queries: " + ", ".join(f"{data_title(name)} {queries:,}" for name, (queries, _) in sizes.items())
    else:
        size = f"{rows[0]['n_queries']:,} queries, {rows[0]['n_gallery']:,} in the gallery"
    return BenchmarkTable(
        title=title,
        protocols=list(dict.fromkeys(f"{row['experiment']}: {row['protocol']}" for row in rows)),
        size=size,
        columns=[data_title(column) if data == "*" else metric_title(column) for column in columns],
        rows=[(name, shown(name, _cell, mark=True)) for name in present],
        differences=[(f"{name} - {reference}", shown(name, _difference)) for name in having("reference")],
        published=[(f"{name}, published", shown(name, _published)) for name in having("published")],
        notes=[f"{name}: {NOT_COMPUTED}. {why}" for name, why in absent.items() if why],
    )


NOT_COMPUTED = "not computed"


def to_markdown(
    tables: Sequence[BenchmarkTable], skipped: dict[str, int], left_out: Mapping[str, str] | None = None
) -> str:
    """The tables as GitHub Markdown, best values bold, and what was left out of the data."""
    lines = []
    for table in tables:
        lines += [f"## {table.title}", "", f"{table.size}.", ""]
        lines.append("| experiment | " + " | ".join(table.columns) + " |")
        lines.append("|---|" + "---:|" * len(table.columns))
        for name, cells in [*table.rows, *table.differences, *table.published]:
            shown = [f"**{text}**" if best else text for text, best in cells]
            lines.append(f"| {name} | " + " | ".join(shown) + " |")
        lines += ["", *(f"{note}\n" for note in table.notes)]
    if any(table.differences for table in tables):
        lines += [f"{DIFFERENCES}", ""]
    lines += left_out_sentences(left_out or {})
    lines.append(skipped_sentence(skipped))
    return "\n".join(lines) + "\n"


DIFFERENCES = (
    "Differences have 95 % intervals in brackets, by a paired bootstrap over queries; sums, medians and correlations "
    "are no means over queries and have none."
)


def to_latex(tables: Sequence[BenchmarkTable]) -> str:
    """The tables for a paper: booktabs, best values bold. Each is a table environment of its own."""
    lines = ["% Needs \\usepackage{booktabs}."]
    for table in tables:
        lines += ["\\begin{table}", "\\centering", f"\\caption{{{_latex(table.title)}. {_latex(table.size)}.}}"]
        lines += [f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}", "\\toprule"]
        lines.append(" & ".join(["experiment", *map(_latex, table.columns)]) + " \\\\")
        for group in (table.rows, table.differences, table.published):
            if group:
                lines.append("\\midrule")
            for name, cells in group:
                shown = [f"\\textbf{{{_latex(text)}}}" if best else _latex(text) for text, best in cells]
                lines.append(" & ".join([_latex(name), *shown]) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def _latex(text: str) -> str:
    for character, written in LATEX.items():
        text = text.replace(character, written)
    return text


LATEX = {"&": "\\&", "%": "\\%", "_": "\\_", "#": "\\#", "±": "$\\pm$"}


def left_out_sentences(left_out: Mapping[str, str]) -> list[str]:
    """One sentence for each thing that was named but could not be scored, as a Markdown list."""
    lines = [f"- {name}: {why}" for name, why in left_out.items()]
    return ["Not scored:", "", *lines, ""] if lines else []


def skipped_sentence(skipped: dict[str, int]) -> str:
    """What dataset.skip left out, counted."""
    if not skipped:
        return "Nothing was left out of the data."
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in skipped.items())
    return f"Left out of the data, as dataset.skip allows: {counts}."


def metric_title(metric: str) -> str:
    """`t2i_r10` -> `t2i R@10`."""
    direction, _, name = metric.partition("_") if metric.startswith(("i2t_", "t2i_")) else ("", "", metric)
    title = METRIC_TITLES.get(name) or (f"R@{name[1:]}" if name[1:].isdigit() else name.replace("_", " "))
    return f"{direction} {title}".strip()


def data_title(data: str) -> str:
    """`cub` -> `CUB-200-2011`, `sts12` -> `STS12`."""
    return DATA_TITLES.get(data) or (data.upper() if data.startswith("sts") else data)


def _cell(row: Mapping[str, Any]) -> str:
    spread = f" ± {row['std']:.1f}" if len(row["seeds"]) > 1 else ""
    return f"{row['mean']:.1f}{spread}"


def _difference(row: Mapping[str, Any]) -> str:
    if row.get("difference") is None:
        return ""
    interval = (
        "" if row.get("difference_low") is None else f" [{row['difference_low']:+.1f}, {row['difference_high']:+.1f}]"
    )
    return f"{row['difference']:+.1f}{interval}"


def _published(row: Mapping[str, Any]) -> str:
    return "" if row.get("published") is None else f"{row['published']:.1f}"
