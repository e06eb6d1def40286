"""Small galleries as `cusa embed` writes them, for tests of the index and of what is built on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cusa.gallery.items import items_table
from cusa.gallery.store import write_gallery


def unit(rows: np.ndarray) -> np.ndarray:
    """Normalised float32 rows."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rows: int, dimension: int, seed: int = 0, clusters: int = 20) -> np.ndarray:
    """Normalised embeddings, float32 [rows, dimension], around centres that are the same for every seed."""
    centres = np.random.default_rng(1000).standard_normal((clusters, dimension))
    random = np.random.default_rng(seed)
    return unit(centres[random.integers(clusters, size=rows)] + 0.7 * random.standard_normal((rows, dimension)))


def save_gallery(
    out: Path,
    embeddings: np.ndarray,
    items: list[str] | None = None,
    pictures: list[Path] | None = None,
    model_sha256: str = "a" * 64,
    parts: int | None = None,
    captions: list[list[str]] | None = None,
    columns: dict[str, list] | None = None,
    **described: str,
) -> Path:
    """Write OUT, with items 0000.png, 0001.png, ... `parts` keeps the embeddings in so many parts."""
    rows = len(embeddings)
    table = items_table(
        [f"{row:04}.png" for row in range(rows)] if items is None else items,
        None if pictures is None else [str(path) for path in pictures],
        captions=[[f"number {row}"] for row in range(rows)] if captions is None else captions,
        columns=columns,
    )
    write_gallery(out, embeddings, table, out / "model", model_sha256, **described)
    if parts:
        split_into_parts(out, embeddings, table, parts)
    return out


def split_into_parts(out: Path, embeddings: np.ndarray, table: pa.Table, parts: int) -> None:
    """Keep the embeddings and items of a gallery in parts, as `cusa embed` does for large ones."""
    meta = json.loads((out / "meta.json").read_text())
    bounds = np.linspace(0, len(table), parts + 1).astype(int).tolist()
    meta["parts"] = []
    for part in range(parts):
        start, stop = bounds[part], bounds[part + 1]
        folder = f"parts/{part:06}"
        (out / folder).mkdir(parents=True)
        np.save(out / folder / "embeddings.npy", embeddings[start:stop])
        pq.write_table(table.slice(start, stop - start), out / folder / "items.parquet")
        files = {"embeddings": f"{folder}/embeddings.npy", "items": f"{folder}/items.parquet"}
        meta["parts"].append({**files, "rows": stop - start})
    (out / "meta.json").write_text(json.dumps(meta))


def save_picture(path: Path, seed: int, side: int = 64) -> Path:
    """A picture of random blocks, by which perceptual hashes tell pictures apart."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    small.resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path
