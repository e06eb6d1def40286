"""The gallery: queries, and the pictures that each model retrieves for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from cusa.annotations.tables import CAPTIONS, IMAGES, SplitTables, read_table, split_rows
from cusa.common.images import open_rgb
from cusa.config.report import Gallery
from cusa.layout import DatasetFolder
from cusa.metrics.neighbours import nearest as nearest_rows
from cusa.metrics.scores import unit_float32
from cusa.runs.record import RunFolder
from cusa.shards.reading import ShardReader

THUMBNAIL = 112
GALLERY_SEED = 0


@dataclass(frozen=True)
class Hit:
    """A retrieved picture: its thumbnail as a data URL, its title, and whether it is right (None if unknown)."""

    thumbnail: str
    title: str
    right: bool | None


@dataclass(frozen=True)
class Query:
    """A text or picture query, and the pictures that each model retrieved, best first."""

    text: str
    thumbnail: str | None
    hits: dict[str, list[Hit]]


def text_queries(folder: DatasetFolder, models: Mapping[str, RunFolder], gallery: Gallery) -> list[Query]:
    """Captions of distinct test images, drawn with a fixed seed, and the nearest test images of each.

    `models` gives the run of each model. Empty if there are none. Raises DataError if embeddings are missing.
    """
    if not models:
        return []
    tables = SplitTables.open(folder, "test", captions=["caption"])
    texts, image_of = tables.captions["caption"].to_pylist(), tables.image_of_caption
    order = np.random.default_rng(GALLERY_SEED).permutation(len(texts))
    _, first = np.unique(image_of[order], return_index=True)
    chosen = order[np.sort(first)][: gallery.text_queries]
    nearest = {
        name: nearest_positions(
            run.embeddings("test", "text_cross", len(texts))[chosen],
            run.embeddings("test", "image_cross", len(tables.image_rows)),
            gallery.top,
        )
        for name, run in models.items()
    }
    pictures = Pictures.of(folder, "test")
    return [
        Query(
            text=texts[caption],
            thumbnail=None,
            hits={
                name: [pictures.hit(int(image), bool(image == image_of[caption])) for image in rankings[number]]
                for name, rankings in nearest.items()
            },
        )
        for number, caption in enumerate(chosen)
    ]


def image_queries(folder: DatasetFolder, models: Mapping[str, RunFolder], gallery: Gallery) -> list[Query]:
    """Pictures of distinct labels, drawn with a fixed seed, and the nearest other pictures of each.

    If the data set has no labelled images, they are pictures of the test split. `models` gives the run of each model.
    Empty if there are none. Raises DataError if embeddings are missing.
    """
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
    nearest = {}
    for name, run in models.items():
        embeddings = run.embeddings(split, "image_uni", len(rows))
        rankings = nearest_positions(embeddings[chosen], embeddings, gallery.top + 1)
        # Without the query itself.
        nearest[name] = [ranking[ranking != own][: gallery.top] for own, ranking in zip(chosen, rankings, strict=True)]
    pictures = Pictures.of(folder, split)
    return [
        Query(
            text=pictures.title(int(query)),
            thumbnail=pictures.thumbnail(int(query)),
            hits={
                name: [
                    pictures.hit(int(image), bool(labels[image] == labels[query]) if labelled else None)
                    for image in rankings[number]
                ]
                for name, rankings in nearest.items()
            },
        )
        for number, query in enumerate(chosen)
    ]


class Pictures:
    """Thumbnails and titles of a split's images, by position in the split."""

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, folder: DatasetFolder, split: str) -> Pictures:
        """The pictures of a split. Several parts of the page show them; each is read once."""
        return cls(folder, split)

    def __init__(self, folder: DatasetFolder, split: str) -> None:
        self.reader = ShardReader(folder.shards(split))
        images = read_table(folder.annotations, IMAGES, ["image_id", "split", "label"])
        rows = split_rows(images, split)
        labels = images["label"].to_pylist()
        first_caption: dict[int, str] = {}
        of_label: dict[str, str] = {}
        if folder.table("captions").is_file():  # the labelled images of benchmarks have none
            captions = read_table(folder.annotations, CAPTIONS, ["caption", "image"])
            for image, caption in zip(captions["image"].to_pylist(), captions["caption"].to_pylist(), strict=True):
                first_caption.setdefault(image, caption)
                if labels[image] is not None:
                    of_label.setdefault(labels[image], caption)
        # A labelled picture without a caption has the first caption of its label as title.
        self.titles = [
            first_caption.get(row) or of_label.get(labels[row]) or labels[row] or images["image_id"][row].as_py()
            for row in rows.tolist()
        ]
        self.thumbnail = cache(self._thumbnail)

    def title(self, position: int) -> str:
        """The caption of a picture, else a caption of its label, else its label, else its id."""
        title: str = self.titles[position]
        return title

    def hit(self, position: int, right: bool | None) -> Hit:
        """A retrieved picture."""
        return Hit(self.thumbnail(position), self.title(position), right)

    def _thumbnail(self, position: int) -> str:
        """A small WebP of the picture as a data URL."""
        image = open_rgb(self.reader.encoded(position))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def nearest_positions(queries: np.ndarray, gallery: np.ndarray, top: int) -> np.ndarray:
    """Positions of the `top` gallery rows of highest cosine, best first: int64 [n, top].

    `queries` [n, D] and `gallery` [m, D] are embeddings; if m is less than `top`, all m are returned.
    """
    unit_queries, unit_gallery = unit_float32(np.asarray(queries)), unit_float32(np.asarray(gallery))
    return nearest_rows(unit_queries, unit_gallery, min(top, len(gallery)))[1]
