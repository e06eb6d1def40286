"""The summary as tables for readers: in Markdown, in LaTeX and on the report's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cusa.annotations.labelled_images import ARCHIVES

TITLES = {
    "itr": "Image-text retrieval",
    "eccv_caption": "Extended positives",
    "image_retrieval": "Image retrieval",
    "sts": "Semantic textual similarity",
    "zero_shot_classification": "Zero-shot classification",
    "linear_probe": "Linear probe",
}
# If several data sets are scored, one table shows this metric of each; summary.parquet has the others.
CLASSIFICATION = ("zero_shot_classification", "linear_probe")
MAIN_METRIC = {"image_retrieval": "r1", "sts": "spearman", "zero_shot_classification": "acc1", "linear_probe": "acc1"}
DATA_TITLES = {
    **{name: archive.title for name, archive in ARCHIVES.items()},
    "": "own images",  # of the data set, in a table with other data
    "folds": "mean over folds",
    "languages": "mean",
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
    "acc1": "accuracy",
    "acc5": "among 5",
    "median_rank": "MedR",  # of the first right answer
}
NOT_COMPUTED = "not computed"
UNDEFINED = "–"
FOOTNOTE = "†"  # marks a mean over fewer seeds than the others
DIFFERENCES = (
    "Differences have 95 % intervals in brackets, by a paired bootstrap that draws images with all their captions, "
    "labelled query images or pairs of sentences."
)
NO_INTERVAL = (
    "Differences without brackets have no interval: {benchmark}.queries.npz does not describe the metric, a seed does "
    "not define it, or an earlier release wrote that file. Then delete the file and run the workflow to write it again."
)
LATEX = {"&": "\\&", "%": "\\%", "_": "\\_", "#": "\\#", "±": "$\\pm$", "–": "--", "†": "$^\\dagger$"}
Cells = list[tuple[str, bool]]


@dataclass(frozen=True)
class BenchmarkTable:
    """One table of a benchmark: a row for each experiment, a column for each metric.

    A cell is its text and whether it is the best of its column. `differences` has a row for each experiment except the
    reference, `published` one for each experiment that the paper has figures of. `has_all_intervals` is False if a
    difference has no interval.
    """

    title: str
    protocols: list[str]
    size: str
    columns: list[str]
    rows: list[tuple[str, Cells]]
    differences: list[tuple[str, Cells]] = field(default_factory=list)
    published: list[tuple[str, Cells]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_all_intervals: bool = True


def benchmark_tables(
    rows: Sequence[Mapping[str, Any]], left_out: Mapping[str, str] | None = None
) -> list[BenchmarkTable]:
    """The rows of `summary_rows` as one table for each benchmark and data set, or one of all its data sets.

    `left_out` gives the reason, by name, of everything that could not be scored.
    """
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    averaged = {row["benchmark"] for row in rows if row["data"] == "average"}
    for row in rows:
        benchmark, data = row["benchmark"], row["data"]
        # The folds of retrieval have a table of their own; all languages share one.
        main = "rsum" if benchmark == "itr" and data != "folds" else MAIN_METRIC.get(benchmark)
        if data and main is not None:
            if row["metric"] != main:
                continue
            data = "*"
        grouped.setdefault((benchmark, data), []).append(row)
        if benchmark in averaged.intersection(CLASSIFICATION) and not data and row["metric"] == main:
            grouped.setdefault((benchmark, "*"), []).append(row)  # the average counts the data set's own images
    experiments = list(dict.fromkeys(row["experiment"] for row in rows))
    return [_table(*key, members, experiments, left_out or {}) for key, members in grouped.items()]


def _table(
    benchmark: str, data: str, rows: list[Mapping[str, Any]], experiments: list[str], left_out: Mapping[str, str]
) -> BenchmarkTable:
    """The table of `rows`, which are of one benchmark and data set, or of all data sets if `data` is "*"."""

    def column_of(row: Mapping[str, Any]) -> str:
        return str(row["data"] if data == "*" else row["metric"])

    columns = list(dict.fromkeys(map(column_of, rows)))
    row_of_cell = {(row["experiment"], column_of(row)): row for row in rows}
    best = {
        column: (min if column.endswith("median_rank") else max)(
            (round(row["mean"], 1) for row in rows if column_of(row) == column and row["mean"] is not None),
            default=None,
        )
        for column in columns
    }

    def cells(experiment: str, text: Callable[[Mapping[str, Any]], str], mark: bool = False) -> Cells:
        shown = [(row_of_cell.get((experiment, column)), column) for column in columns]
        return [
            (text(row), mark and _rounded(row) == best[column] is not None) if row else (NOT_COMPUTED, False)
            for row, column in shown
        ]

    def having(key: str) -> list[str]:
        """The experiments that have a value of `key` in some row."""
        with_value = {row["experiment"] for row in rows if row.get(key) is not None}
        return [name for name in experiments if name in with_value]

    def title_of(column: str) -> str:
        return data_title(column) if data == "*" else metric_title(column)

    present = having("experiment")
    reasons = {name: left_out.get(f"{name}, {benchmark}") for name in experiments if name not in present}
    reference = next((row["reference"] for row in rows if row.get("reference")), None)
    return BenchmarkTable(
        title=_title(benchmark, data),
        protocols=list(dict.fromkeys(f"{row['experiment']}: {row['protocol']}" for row in rows)),
        size=_size(data, rows),
        columns=[title_of(column) for column in columns],
        rows=[(name, cells(name, _cell, mark=True)) for name in present],
        differences=[(f"{name} - {reference}", cells(name, _difference)) for name in having("reference")],
        published=[(f"{name}, published", cells(name, _published)) for name in having("published")],
        notes=[
            *(f"{name}: {NOT_COMPUTED}. {reason}" for name, reason in reasons.items() if reason),
            *_undefined_notes(rows, lambda row: title_of(column_of(row))),
            *_seed_notes(rows, reference),
        ],
        has_all_intervals=all(row.get("difference") is None or row.get("difference_low") is not None for row in rows),
    )


def _title(benchmark: str, data: str) -> str:
    title = TITLES.get(benchmark, benchmark)
    if data == "*":
        if benchmark == "itr":
            return f"{title}, rsum of each language"
        return f"{title}, {metric_title(MAIN_METRIC[benchmark])} of each data set"
    return f"{title}: {data_title(data)}" if data else title


def _size(data: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of queries and, for one data set, of gallery items."""
    if data != "*":
        queries, gallery = rows[0]["n_queries"], rows[0]["n_gallery"]
        if {"t2i", "i2t"} <= {row["metric"].partition("_")[0] for row in rows}:
            return f"{queries:,} texts and {gallery:,} images, each searched with the other"
        if rows[0]["benchmark"] in CLASSIFICATION:
            return f"{queries:,} images, {gallery:,} classes"
        return f"{queries:,} queries, {gallery:,} in the gallery"
    counts = {row["data"]: row["n_queries"] for row in rows if row["data"] not in ("average", "languages")}
    return "Queries: " + ", ".join(f"{data_title(name)} {count:,}" for name, count in counts.items())


def to_markdown(
    tables: Sequence[BenchmarkTable],
    skipped: dict[str, int],
    left_out: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> str:
    """The tables as GitHub Markdown, best values bold, with notes and the counts of skipped records.

    `notes` are what runs note about their captions, each with the names of the experiments.
    """
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
        lines += [differences_sentence(tables), ""]
    lines += left_out_sentences(left_out or {})
    if notes:
        lines += [f"{NOTES}:", "", *(f"- {note} (noted by {experiments})" for note, experiments in notes.items()), ""]
    lines.append(skipped_sentence(skipped))
    return "\n".join(lines) + "\n"


NOTES = "Results that may be worse than need be"


def to_latex(tables: Sequence[BenchmarkTable]) -> str:
    """The tables for a paper, each a table environment in the style of booktabs, best values bold."""
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
        lines += ["\\bottomrule", "\\end{tabular}"]
        lines += [f"\\par\\footnotesize {_latex(note)}" for note in table.notes]
        lines += ["\\end{table}", ""]
    return "\n".join(lines)


def _latex(text: str) -> str:
    """Text with the characters that LaTeX reserves escaped."""
    for character, written in LATEX.items():
        text = text.replace(character, written)
    return text


def differences_sentence(tables: Sequence[BenchmarkTable]) -> str:
    """How the intervals of the differences are made, and why some have none."""
    return DIFFERENCES if all(table.has_all_intervals for table in tables) else f"{DIFFERENCES} {NO_INTERVAL}"


def left_out_sentences(left_out: Mapping[str, str]) -> list[str]:
    """The reasons why data or experiments were not scored, as a Markdown list."""
    lines = [f"- {name}: {why}" for name, why in left_out.items()]
    return ["Not scored:", "", *lines, ""] if lines else []


def skipped_sentence(skipped: dict[str, int]) -> str:
    """A sentence that counts the records that dataset.skip left out, by kind."""
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
    """Mean and, for several seeds, standard deviation, marked if some seeds do not define it."""
    if row["mean"] is None:
        return UNDEFINED
    spread = f" ± {row['std']:.1f}" if len(_defined_seeds(row)) > 1 else ""
    return f"{row['mean']:.1f}{spread}{FOOTNOTE if row.get('undefined') else ''}"


def _rounded(row: Mapping[str, Any]) -> float | None:
    return None if row["mean"] is None else round(row["mean"], 1)


def _defined_seeds(row: Mapping[str, Any]) -> list[int]:
    """The seeds of an experiment that define a metric."""
    return [seed for seed, value in zip(row["seeds"], row["values"], strict=True) if value is not None]


def _undefined_notes(rows: Sequence[Mapping[str, Any]], title: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """A footnote about each figure that is not defined, or not for all seeds; figures of one reason share one."""
    columns: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.get("undefined"):
            seeds = ", ".join(map(str, _defined_seeds(row)))
            shown = f"{FOOTNOTE} mean of seed {seeds} only" if seeds else f"{UNDEFINED} not defined"
            columns.setdefault((row["experiment"], shown, row["undefined"]), []).append(title(row))
    return [
        f"{experiment}, {', '.join(titles)}: {shown}: {reason}."
        for (experiment, shown, reason), titles in columns.items()
    ]


def _seed_notes(rows: Sequence[Mapping[str, Any]], reference: str | None) -> list[str]:
    """A footnote about each experiment that is compared with a reference of other seeds."""
    seeds = {row["experiment"]: row["seeds"] for row in rows}
    return [
        f"{name} - {reference}: the mean of seed {', '.join(map(str, seeds[name]))} is compared with that of seed "
        f"{', '.join(map(str, seeds[reference]))}."
        for name in seeds
        if reference in seeds and set(seeds[name]) != set(seeds[reference])
    ]


def _difference(row: Mapping[str, Any]) -> str:
    """The difference to the reference and, if it has one, its interval."""
    if row.get("difference") is None:
        return UNDEFINED if row.get("reference") else ""
    if row.get("difference_low") is None:
        return _signed(row["difference"])
    return f"{_signed(row['difference'])} [{_signed(row['difference_low'])}, {_signed(row['difference_high'])}]"


def _signed(value: float) -> str:
    """One decimal and a sign, which is + for zero."""
    return f"{round(value, 1) + 0.0:+.1f}"


def _published(row: Mapping[str, Any]) -> str:
    """The paper's figure, if there is one."""
    return "" if row.get("published") is None else f"{row['published']:.1f}"
