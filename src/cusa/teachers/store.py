"""The feature store: features.npy in row order, opened by memory-mapping, and meta.json, which describes it.

A store that is too large for one file stays in the parts that it was extracted in, which its meta.json lists.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cusa.common.files import atomic_folder, made_again, read_array, read_json, require_space, write_json
from cusa.common.workflow_files import workflow_command
from cusa.errors import DataError
from cusa.layout import META

FEATURES = "features.npy"

# The value of `weights_sha256` in meta.json: the digest of the model's file or tensors, or that it is not known.
SHA256_OF, FILE, TENSORS = "weights_sha256_of", "file", "tensors"
UNKNOWN = "unknown"
PART_FOLDERS = "part_folders"
JOIN_BYTES = 64 << 20


class Features(Protocol):
    """Features of the rows of a split, which are read when they are needed."""

    @property
    def dimension(self) -> int:
        """Length of a feature vector."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Copies of rows, float32 [len(rows), dimension]."""


class FeatureStore:
    """Read-only features [rows, d] of one split; a row is read from disk when it is needed."""

    def __init__(self, folder: str | Path, rows: int, model: str | None = None, sha256: str | None = None) -> None:
        """Open and check a store.

        Raises DataError unless it has `rows` rows, all written, and was made by `model` with the weights `sha256`;
        None for either checks nothing, and so does `sha256` if the store does not know the file of its weights.
        """
        self.folder = Path(folder)
        if not (self.folder / META).is_file():
            raise DataError(
                f"{self.folder} has no {FEATURES} with its {META}; run `{workflow_command('features')}` first."
            )
        self.meta = _meta(self.folder)
        # One array, or one a part; `starts` has the row that each starts at, and the number of rows.
        folders = [self.folder / part for part in self.meta.get(PART_FOLDERS, ["."])]
        self.arrays = [_array(part / FEATURES, rows) for part in folders]
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        if "features_sha256" not in self.meta:  # cusa did not write it, so its values were never checked
            self._require_finite()
        if len(self) != rows:
            raise DataError(
                f"{self.folder} has {len(self)} rows, but the split has {rows}; the data changed after the features "
                f"were extracted, so {made_again(self.folder)}"
            )
        if model is not None and self.meta.get("model") != model:
            raise DataError(
                f"{self.folder} was extracted by {self.meta.get('model')}, but {model} is configured; "
                f"{made_again(self.folder)}"
            )
        of_file = self.meta.get("weights_sha256") != UNKNOWN and self.meta.get(SHA256_OF) != TENSORS
        if sha256 is not None and of_file and self.meta.get("weights_sha256") != sha256:
            raise DataError(
                f"{self.folder} was extracted with other weights of {self.meta.get('model')} (sha256 "
                f"{str(self.meta.get('weights_sha256'))[:12]}...) than those configured now ({sha256[:12]}...); "
                f"{made_again(self.folder)}"
            )

    def _require_finite(self) -> None:
        first = 0
        for block in self.blocks(max(1, JOIN_BYTES // (4 * self.dimension))):
            _require_finite(block, block, self.folder, first)
            first += len(block)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dimension(self) -> int:
        """Length of a feature vector."""
        return int(self.arrays[0].shape[1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Copies of rows, float32 [len(rows), d]."""
        if len(self.arrays) == 1:
            return np.asarray(self.arrays[0][rows], dtype=np.float32)
        features = np.empty((len(rows), self.dimension), dtype=np.float32)
        rows = np.asarray(rows)
        part_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(part_of_row):
            mine = part_of_row == part
            features[mine] = self.arrays[part][rows[mine] - self.starts[part]]
        return features

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """All features in row order, as they are stored, at most `rows` at a time."""
        for array in self.arrays:
            yield from (array[start : start + rows] for start in range(0, len(array), rows))


def _meta(folder: Path) -> dict[str, Any]:
    """The content of meta.json. Raises DataError unless it describes features."""
    meta = read_json(folder / META, made_again(folder))
    parts = meta.get(PART_FOLDERS, ["."]) if isinstance(meta, dict) else None
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise DataError(f"{folder / META} does not describe features; {made_again(folder)}")
    return dict(meta)


def is_in_parts(folder: Path) -> bool:
    """Whether a store lists its parts. False if its meta.json is damaged; opening the store reports that."""
    with suppress(DataError):
        return PART_FOLDERS in _meta(folder)
    return False


def _array(path: Path, rows: int) -> np.ndarray:
    again = made_again(path.parent)
    array = read_array(path, again)
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32):
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected float16 or float32 of shape [{rows}, d]; "
            f"{again}"
        )
    return array


def feature_dimension(folder: str | Path) -> int:
    """Length of a stored feature vector. Raises DataError when there is no store."""
    path = Path(folder) / META
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `{workflow_command('features')}` first.")
    dimension = _meta(path.parent).get("d")
    if not isinstance(dimension, int) or isinstance(dimension, bool) or dimension < 1:
        raise DataError(
            f"{path} says {dimension!r} for the length of a row (`d`), expected a number; {made_again(path.parent)}"
        )
    return dimension


def join_features(parts: Sequence[str | Path], folder: str | Path, copy: bool = True) -> None:
    """Make one store of the stores of its parts, in the order given: copied in blocks, or without `copy` only listed.

    Raises DataError when the parts differ in model, weights, transform, type or length of a row.
    """
    metas = [_meta(Path(part)) for part in parts]
    stores = [FeatureStore(part, meta["rows"]) for part, meta in zip(parts, metas, strict=True)]
    for key in ("model", "weights_sha256", "transform", "dtype", "d"):
        if len(values := {str(meta[key]) for meta in metas}) > 1:
            raise DataError(
                f"the parts of {folder} were made with different {key}: {', '.join(sorted(values))}; delete "
                f"{Path(parts[0]).parent} and run `{workflow_command('features')}` again."
            )
    meta, rows = metas[0] | {"parts": len(metas)}, sum(meta["rows"] for meta in metas)
    if copy:
        step = max(1, JOIN_BYTES // (4 * stores[0].dimension))
        blocks = (block for store in stores for block in store.blocks(step))
        write_features(folder, rows, stores[0].dimension, metas[0]["dtype"], blocks, meta)
        return
    digest = hashlib.sha256("".join(meta["features_sha256"] for meta in metas).encode()).hexdigest()
    listed = [os.path.relpath(part, folder) for part in parts]
    with atomic_folder(folder) as temporary:
        write_json(temporary / META, {**meta, "rows": rows, "features_sha256": digest, PART_FOLDERS: listed})


def _features_of(bad: np.ndarray, count: int, folder: str | Path, first: int) -> str:
    """The beginning of a sentence about rows of a part of `count` rows; its first row has the number `first`."""
    rows = f"{', '.join(str(first + int(row)) for row in bad[:5])}{', ...' if len(bad) > 5 else ''}"
    return f"{folder}: the features of {len(bad)} of rows {first} to {first + count - 1} (row {rows})"


def _require_kept(part: np.ndarray, stored: np.ndarray, folder: str | Path, first: int) -> None:
    """Raise DataError, with rows, if all features of a row are too near to 0 for the type that they are stored in."""
    if part.dtype == stored.dtype or not len(part):
        return
    smallest = np.finfo(stored.dtype).tiny
    largest = np.abs(part).max(axis=1)
    if len(bad := np.flatnonzero((largest > 0) & (largest < smallest))):
        raise DataError(
            f"{_features_of(bad, len(part), folder, first)} are all nearer to 0 than {smallest:.2g}, the smallest "
            f"number that {stored.dtype} stores without loss (the largest is {largest[bad].max():.2g}); use dtype: "
            "float32 for this model."
        )


def _require_finite(part: np.ndarray, stored: np.ndarray, folder: str | Path, first: int) -> None:
    """Raise DataError, with rows, if features of a part are not finite; its first row has the number `first`."""
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if not len(bad):
        return
    where = _features_of(bad, len(stored), folder, first)
    if part.dtype != stored.dtype and np.isfinite(part[bad]).all():
        raise DataError(
            f"{where} are not finite in {stored.dtype}, but they are in {part.dtype}; use dtype: float32 for this "
            "model."
        )
    raise DataError(
        f"{where} are NaN or infinite; use precision: fp32 where it is another, else other weights or another "
        "model. Rows are numbered as in the split's tables."
    )


def write_features(
    folder: str | Path,
    rows: int,
    dimension: int,
    dtype: str,
    parts: Iterable[np.ndarray],
    meta: Mapping[str, Any],
) -> None:
    """Write features, [n, dimension] a part, in row order; one part is in memory at a time.

    Rows, d, dtype and the SHA-256 of the array's bytes are added to `meta`. Raises DataError when the disk lacks space
    (before anything is computed), when `parts` do not have `rows` rows together, and when a value is not finite in
    `dtype`, or all of a row are too small for it.
    """
    require_space(folder, rows * dimension * np.dtype(dtype).itemsize, f"{folder}/{FEATURES}")
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (rows, dimension),
    }
    # The file is not memory-mapped: on a full disk, a write raises an error, but memory-mapping kills the process.
    with atomic_folder(folder) as temporary:
        done, digest = 0, hashlib.sha256()
        with (temporary / FEATURES).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                with np.errstate(over="ignore"):  # _require_finite reports it
                    stored = np.ascontiguousarray(part, dtype=dtype)
                _require_finite(part, stored, folder, done)
                _require_kept(part, stored, folder, done)
                file.write(stored.data)
                digest.update(stored.data)
                done += len(part)
        if done != rows:
            raise DataError(f"{folder}: {done} feature rows came out of the model, expected {rows}.")
        written = {"rows": rows, "d": dimension, "dtype": dtype, "features_sha256": digest.hexdigest()}
        write_json(temporary / META, {**meta, **written})
