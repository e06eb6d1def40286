"""The measurements of choosing an index, as lines of text."""

from __future__ import annotations

from cusa.index.meta import IndexMeta, Trial


def table(meta: IndexMeta) -> list[str]:
    """One line for each setting that was tried, and a line on the result."""
    lines = []
    if meta.tried:
        samples = list(meta.tried[0].recall)
        rows = [("index", "search", *(f"recall@10 {name}" for name in samples), "ms a query", "MB", "")]
        rows += [_cells(trial, samples) for trial in meta.tried]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    removed = f", {meta.removed:,} removed" if meta.removed else ""
    how = "exact" if meta.kind == "flat" else f"recall@10 {meta.measured_recall:.3f}"
    kind = meta.kind.replace("_", "-")
    return [*lines, f"{meta.rows:,} rows{removed}: {kind} ({meta.factory} of faiss), {how}, {meta.bytes / 1e6:,.1f} MB"]


def _cells(trial: Trial, samples: list[str]) -> tuple[str, ...]:
    search = ", ".join(f"{name} {value}" for name, value in trial.search.model_dump(exclude_none=True).items())
    recalls = (f"{trial.recall[name]:.3f}" for name in samples)
    return (
        trial.factory,
        search or "every row",
        *recalls,
        f"{trial.milliseconds:.2f}",
        f"{trial.bytes / 1e6:,.1f}",
        "chosen" if trial.chosen else "",
    )
