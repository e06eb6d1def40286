"""Small galleries as `cusa embed` writes them, for tests of the index and of what is built on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def unit(rows: np.ndarray) -> np.ndarray:
    """Normalised float32 rows."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rows: int, dimension: int, seed: int = 0, clusters: int = 20) -> np.ndarray:
    """Normalised embeddings in clusters, float32 [rows, dimension]."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, dimension))
    return unit(centres[random.integers(clusters, size=rows)] + 0.7 * random.standard_normal((rows, dimension)))


def write_gallery(
    out: Path,
    embeddings: np.ndarray,
    items: list[str] | None = None,
    pictures: list[Path] | None = None,
    model_sha256: str = "a" * 64,
    modality: str = "image",
    parts: int | None = None,
    **columns: list,
) -> Path:
    """Write OUT. `parts` keeps the embeddings in so many parts."""
    rows = len(embeddings)
    items = [f"{row:04}.png" for row in range(rows)] if items is None else items
    table = pa.table(
        {
            "item": pa.array(items, pa.string()),
            "path": pa.array([str(path) for path in pictures] if pictures else [None] * rows, pa.string()),
            "offset": pa.array([None] * rows, pa.int64()),
            "size": pa.array([None] * rows, pa.int64()),
            "captions": pa.array([[f"number {row}"] for row in range(rows)], pa.list_(pa.string())),
            **columns,
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, rows, (parts or 1) + 1).astype(int).tolist()
    listed = []
    for part in range(parts or 1):
        start, stop = bounds[part], bounds[part + 1]
        folder = f"parts/{part:06}/" if parts else ""
        (out / folder).mkdir(parents=True, exist_ok=True)
        np.save(out / f"{folder}embeddings.npy", embeddings[start:stop])
        pq.write_table(table.slice(start, stop - start), out / f"{folder}items.parquet")
        listed.append(
            {"embeddings": f"{folder}embeddings.npy", "items": f"{folder}items.parquet", "rows": stop - start}
        )
    meta = {
        "schema": 1,
        "model": str(out / "model"),
        "model_sha256": model_sha256,
        "modality": modality,
        "head": "cross",
        "dimension": embeddings.shape[1],
        "dtype": "float32",
        "rows": rows,
        "parts": listed,
        "unreadable": 0,
        "source": str(out),
        "versions": {},
    }
    (out / "meta.json").write_text(json.dumps(meta))
    return out


def save_picture(path: Path, seed: int, side: int = 64) -> Path:
    """A picture of random blocks, by which perceptual hashes tell pictures apart."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    small.resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path
