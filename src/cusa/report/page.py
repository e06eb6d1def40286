"""The report for readers: one self-contained HTML page with the tables, the training curves and a gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cusa import __version__
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table, skipped_rows, split_rows
from cusa.common.files import atomic_file, made_again, read_parquet
from cusa.config.report import Gallery
from cusa.layout import DatasetFolder
from cusa.report.curves import curves, library
from cusa.report.disagreements import disagreements
from cusa.report.figures import INK, draw_figures, first_seeds, inline_svg, read_histories
from cusa.report.gallery import image_queries, text_queries
from cusa.report.sweep import FIGURE, draw_trials, read_trials, sweep_section
from cusa.report.tables import benchmark_tables, differences_sentence, skipped_sentence
from cusa.runs.record import RunFolder, RunRecord


def render(
    folder: DatasetFolder,
    summary: str | Path,
    runs: Mapping[str, Sequence[str | Path]],
    gallery: Gallery,
    output: str | Path,
    figures: str | Path,
    sweep: str | Path | None = None,
) -> None:
    """Write the HTML page to `output`, and {name}.svg of each of FIGURES to the folder `figures`.

    `sweep` is the trials.parquet of a sweep, which adds a part to the page and sweep.svg.

    `summary` is the summary.parquet. `runs` gives the run folders of each experiment, one a seed. The gallery shows the
    first seed of those of its experiments that are among them. Raises DataError if data of a run are missing.
    """
    import jinja2

    table = read_parquet(summary, made_again(summary))
    rows = table.to_pylist()
    left_out: dict[str, str] = json.loads((table.schema.metadata or {}).get(b"left_out", b"{}"))
    notes: dict[str, str] = json.loads((table.schema.metadata or {}).get(b"notes", b"{}"))
    tables = benchmark_tables(rows, left_out)
    histories = read_histories(runs)
    drawings = draw_figures(first_seeds(histories))
    if sweep is not None:
        drawings[FIGURE] = draw_trials(read_trials(sweep))
    _write_figures(drawings, Path(figures))
    models = {name: RunFolder(Path(runs[name][0])) for name in gallery.experiments if name in runs}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cusa.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.jinja").render(
        dataset=rows[0]["dataset"] if rows else folder.root.name,
        tables=tables,
        differences=differences_sentence(tables),
        left_out=left_out,
        notes=notes,
        figures={name: inline_svg(drawing) for name, drawing in drawings.items()},
        text_queries=text_queries(folder, models, gallery),
        image_queries=image_queries(folder, models, gallery),
        models=list(models),
        disagreements=disagreements(folder, models, gallery),
        trained=bool(histories),
        curves=curves(histories),
        library=library(),
        sweep=None if sweep is None else sweep_section(sweep),
        top=gallery.top,
        runs=[_run_row(name, Path(path)) for name, paths in runs.items() for path in paths],
        splits=_split_rows(folder),
        skipped=skipped_sentence(skipped_rows(folder.annotations)),
        version=__version__,
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )
    with atomic_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _write_figures(drawings: Mapping[str, str], folder: Path) -> None:
    """Write {name}.svg of each drawing, in grey instead of the page's colour."""
    for name, drawing in drawings.items():
        with atomic_file(folder / f"{name}.svg") as temporary:
            temporary.write_text(drawing.replace(INK, "#444444"), encoding="utf-8")


def _split_rows(folder: DatasetFolder) -> list[tuple[str, int, int]]:
    """Name, number of images and number of captions of each split."""
    images = read_table(folder.annotations, IMAGES, ["split"])
    captions = read_table(folder.annotations, CAPTIONS, ["split"])
    return [
        (split, len(split_rows(images, split)), len(split_rows(captions, split)))
        for split in dict.fromkeys(images["split"].to_pylist())
    ]


def _run_row(experiment: str, path: Path) -> dict[str, Any]:
    """A row of the table of runs."""
    record = RunRecord.read(path)
    return {
        "experiment": experiment,
        "seed": record.configuration.seed,
        "epoch": f"{record.selected_epoch + 1} of {record.epochs}",
        "why": record.selected_because,
        "minutes": record.seconds / 60,
        "device": f"{record.processes} x {record.device}",
    }
