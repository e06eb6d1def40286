"""The report for people: one self-contained HTML page with the tables, the curves and a gallery side by side."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cusa import __version__
from cusa.annotations import CAPTIONS, IMAGES, PROBLEMS, read_table, split_rows
from cusa.benchmarks import Run
from cusa.config import Gallery
from cusa.files import read_json, whole_file
from cusa.images import open_rgb
from cusa.layout import DatasetFolder
from cusa.shards import ShardReader
from cusa.summary import DIFFERENCES, benchmark_tables, skipped_sentence

THUMBNAIL = 112
GALLERY_SEED = 0
# Drawn with this colour, which no one would choose; in the page it becomes the text's own, light or dark.
INK = "#010203"
# Okabe and Ito's palette, told apart by colour-blind readers, on light and on dark ground.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
FIGURES = ("validation", "losses", "temperatures")


@dataclass(frozen=True)
class Hit:
    """One picture found: its thumbnail and whether it is a right answer (None where the data cannot say)."""

    thumbnail: str
    title: str
    right: bool | None


@dataclass(frozen=True)
class Query:
    """A text or picture query and what each model found."""

    text: str
    thumbnail: str | None
    found: dict[str, list[Hit]]


def render(
    folder: DatasetFolder,
    summary: str | Path,
    runs: Mapping[str, Sequence[str | Path]],
    gallery: Gallery,
    output: str | Path,
    figures: str | Path,
) -> None:
    """Write the HTML page and the figures (SVG).

    `runs` gives the run folders of each experiment, one a seed. The gallery shows the first seed of the experiments
    it names that were trained.
    """
    import jinja2

    table = pq.read_table(summary)
    rows = table.to_pylist()
    left_out: dict[str, str] = json.loads((table.schema.metadata or {}).get(b"left_out", b"{}"))
    drawings = {
        "validation": _draw_history(
            runs,
            "epoch",
            {"r_mean": "mean recall, %", "t2i_r10": "text-to-image R@10, %", "i2t_r10": "image-to-text R@10, %"},
        ),
        "losses": _draw_history(
            runs, "step", {"loss_contrastive": "contrastive", "loss_cross": "CSA", "loss_uni": "USA"}
        ),
        "temperatures": _draw_temperatures(runs),
    }
    Path(figures).mkdir(parents=True, exist_ok=True)
    for name, drawing in drawings.items():
        with whole_file(Path(figures) / f"{name}.svg") as temporary:
            temporary.write_text(drawing.replace(INK, "#444444"), encoding="utf-8")
    shown = {name: Run(Path(runs[name][0])) for name in gallery.experiments if name in runs}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cusa", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    images = read_table(folder.annotations, IMAGES, ["split"])
    captions = read_table(folder.annotations, CAPTIONS, ["split"])
    page = environment.get_template("report.html.jinja").render(
        dataset=rows[0]["dataset"] if rows else folder.root.name,
        tables=benchmark_tables(rows, left_out),
        differences=DIFFERENCES,
        left_out=left_out,
        figures={name: _inline(drawing) for name, drawing in drawings.items()},
        text_queries=_text_queries(folder, shown, gallery),
        image_queries=_image_queries(folder, shown, gallery),
        models=list(shown),
        trained=bool(_histories(runs)),
        top=gallery.top,
        runs=[_run_row(name, Path(path)) for name, paths in runs.items() for path in paths],
        splits=[
            (split, len(split_rows(images, split)), len(split_rows(captions, split)))
            for split in dict.fromkeys(images["split"].to_pylist())
        ],
        skipped=skipped_sentence(read_json(folder.annotations / PROBLEMS)["skipped"]),
        version=__version__,
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _run_row(experiment: str, path: Path) -> dict[str, Any]:
    about = read_json(path / "run.json")
    return {
        "experiment": experiment,
        "seed": about["configuration"]["seed"],
        "epoch": f"{about['selected_epoch'] + 1} of {about['epochs']}",
        "why": about["selected_because"],
        "minutes": about["seconds"] / 60,
        "device": f"{about['processes']} x {about['device']}",
    }


def _text_queries(folder: DatasetFolder, models: Mapping[str, Run], gallery: Gallery) -> list[Query]:
    """Captions of distinct test images, drawn with a fixed seed, not chosen."""
    if not models:
        return []
    captions = read_table(folder.annotations, CAPTIONS, ["caption", "image", "split"])
    rows = split_rows(captions, "test")
    texts = [captions["caption"][int(row)].as_py() for row in rows]
    image_rows = split_rows(read_table(folder.annotations, IMAGES, ["split"]), "test")
    image_of = captions["image"].to_numpy()[rows] - image_rows[0]
    order = np.random.default_rng(GALLERY_SEED).permutation(len(rows))
    _, first = np.unique(image_of[order], return_index=True)
    chosen = order[np.sort(first)][: gallery.text_queries]
    found = {
        name: _nearest(
            run.embeddings("test", "text_cross", len(rows))[chosen],
            run.embeddings("test", "image_cross", len(image_rows)),
            gallery.top,
        )
        for name, run in models.items()
    }
    pictures = _Pictures(folder, "test")
    return [
        Query(
            text=texts[caption],
            thumbnail=None,
            found={
                name: [pictures.hit(int(image), bool(image == image_of[caption])) for image in ranking[number]]
                for name, ranking in found.items()
            },
        )
        for number, caption in enumerate(chosen)
    ]


def _image_queries(folder: DatasetFolder, models: Mapping[str, Run], gallery: Gallery) -> list[Query]:
    """Pictures of distinct labels, drawn with a fixed seed; the test split where the data has no labelled images."""
    if not models:
        return []
    images = read_table(folder.annotations, IMAGES, ["split", "label"])
    labelled = all((run.folder / "embeddings/variants").is_dir() for run in models.values())
    split = "variants" if labelled else "test"
    rows = split_rows(images, split)
    labels = images["label"].to_numpy(zero_copy_only=False)[rows]
    order = np.random.default_rng(GALLERY_SEED).permutation(len(rows))
    groups = labels.astype(str) if labelled else np.arange(len(rows))
    _, first = np.unique(groups[order], return_index=True)
    chosen = order[np.sort(first)][: gallery.image_queries]
    found = {}
    for name, run in models.items():
        embeddings = run.embeddings(split, "image_uni", len(rows))
        nearest = _nearest(embeddings[chosen], embeddings, gallery.top + 1)
        found[name] = [ranking[ranking != query][: gallery.top] for query, ranking in zip(chosen, nearest, strict=True)]
    pictures = _Pictures(folder, split)
    return [
        Query(
            text=pictures.title(int(query)),
            thumbnail=pictures.thumbnail(int(query)),
            found={
                name: [
                    pictures.hit(int(image), bool(labels[image] == labels[query]) if labelled else None)
                    for image in rankings[number]
                ]
                for name, rankings in found.items()
            },
        )
        for number, query in enumerate(chosen)
    ]


class _Pictures:
    """Thumbnails and titles of a split's images."""

    def __init__(self, folder: DatasetFolder, split: str) -> None:
        self.reader = ShardReader(folder.shards(split))
        images = read_table(folder.annotations, IMAGES, ["image_id", "split", "label"])
        captions = read_table(folder.annotations, CAPTIONS, ["caption", "image"])
        rows = split_rows(images, split)
        labels = images["label"].to_pylist()
        first_caption: dict[int, str] = {}
        of_label: dict[str, str] = {}
        for image, caption in zip(captions["image"].to_pylist(), captions["caption"].to_pylist(), strict=True):
            first_caption.setdefault(image, caption)
            if labels[image] is not None:
                of_label.setdefault(labels[image], caption)
        # A labelled picture without a caption is called what its label is called.
        self.titles = [
            first_caption.get(row) or of_label.get(labels[row]) or labels[row] or images["image_id"][row].as_py()
            for row in rows.tolist()
        ]
        self.thumbnail = cache(self._thumbnail)

    def title(self, position: int) -> str:
        title: str = self.titles[position]
        return title

    def hit(self, position: int, right: bool | None) -> Hit:
        return Hit(self.thumbnail(position), self.title(position), right)

    def _thumbnail(self, position: int) -> str:
        image = open_rgb(self.reader.encoded(position))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _nearest(queries: np.ndarray, gallery: np.ndarray, top: int) -> np.ndarray:
    """Positions of the `top` most similar gallery rows by cosine, best first."""
    import faiss

    queries, gallery = np.array(queries, dtype=np.float32), np.array(gallery, dtype=np.float32)
    faiss.normalize_L2(queries)
    faiss.normalize_L2(gallery)
    found: np.ndarray = faiss.knn(queries, gallery, min(top, len(gallery)), faiss.METRIC_INNER_PRODUCT)[1]
    return found


def _histories(runs: Mapping[str, Sequence[str | Path]]) -> dict[str, Any]:
    """The first seed's history of each experiment that was trained here: imported runs have none."""
    histories = {name: pq.read_table(Path(paths[0]) / "history.parquet").to_pylist() for name, paths in runs.items()}
    return {name: rows for name, rows in histories.items() if any(row["kind"] == "step" for row in rows)}


def _draw_history(runs: Mapping[str, Sequence[str | Path]], kind: str, columns: Mapping[str, str]) -> str:
    """Small multiples: one panel a column, one line an experiment."""
    figure, panels = _panels(len(columns))
    for (column, title), axes in zip(columns.items(), panels, strict=True):
        for colour, (name, history) in zip(_cycle(), _histories(runs).items(), strict=False):
            rows = [row for row in history if row["kind"] == kind and row.get(column) is not None]
            if kind == "step" and not any(row[column] for row in rows):
                continue
            axes.plot([_when(row, history) for row in rows], [row[column] for row in rows], color=colour, label=name)
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel("epoch", color=INK, fontsize=9)
    lines = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=9, labelcolor=INK
    )
    return _svg(figure)


def _draw_temperatures(runs: Mapping[str, Sequence[str | Path]]) -> str:
    histories = _histories(runs)
    figure, panels = _panels(len(histories), height=3.2)
    # Where nothing was trained here, the one panel stays empty.
    for (name, history), axes in zip(histories.items(), panels, strict=False):
        rows = [row for row in history if row["kind"] == "step"]
        names = [key for key in rows[0] if key.startswith("temperature_") and rows[0][key] is not None]
        for colour, key in zip(_cycle(), names, strict=False):
            label = key.removeprefix("temperature_").replace("_", " ")
            axes.plot([_when(row, history) for row in rows], [row[key] for row in rows], color=colour, label=label)
        axes.set_title(name, color=INK, fontsize=10)
        axes.set_xlabel("epoch", color=INK, fontsize=9)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    return _svg(figure)


def _when(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> float:
    """Time in epochs: a step row lies inside its epoch, an epoch row at its end."""
    steps = max(entry["step"] for entry in history)
    return float(row["epoch"]) + (row["step"] / steps if row["kind"] == "step" else 1.0)


def _panels(count: int, height: float = 2.8) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    count = max(count, 1)  # where nothing was trained here, an empty panel
    figure = Figure(figsize=(3.6 * count, height), layout=ConstrainedLayoutEngine(w_pad=0.12))
    figure.patch.set_alpha(0)
    panels = list(np.atleast_1d(figure.subplots(1, count)))
    for axes in panels:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=8)
        axes.grid(alpha=0.2, color=INK)
        for side, spine in axes.spines.items():
            spine.set_color(INK)
            spine.set_visible(side in ("left", "bottom"))
    return figure, panels


def _cycle() -> list[str]:
    return list(COLOURS) * 4


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cusa"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return buffer.getvalue()


def _inline(svg: str) -> str:
    """An SVG file as an element of a page, in the colour of the page's text."""
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
