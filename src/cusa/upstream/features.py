"""Reading, importing and exporting image features in the published format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa import __version__
from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.common.files import atomic_file, sha256_of_file
from cusa.config.models import ImageModel
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.teachers.store import UNKNOWN, FeatureStore, write_features
from cusa.upstream.unpickling import read_feature_dict


def load_features(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read a published `*_unicom.npy`: the image ids in the file's order, and their features [n, d] in its own dtype.

    The file is a pickled dict {image id: array of shape [1, d]}. The unpickler can build nothing but such a dict. If
    the file asks for any other function or class, DataError is raised and nothing is called. Rows of shape [d] are read
    too, and ids that are integers become text. Raises DataError for rows of different length or type, and for rows that
    are not finite.
    """
    rows: list[np.ndarray] = []
    row_numbers = read_feature_dict(path, rows.append)
    checks = _RowChecks(path)
    for row in rows:
        checks.add(row)
    checks.require_kind(row_numbers)
    checks.require_finite(row_numbers)
    return list(row_numbers), np.concatenate([rows[number] for number in row_numbers.values()])


class _RowChecks:
    """Checks of a file's rows: their common length and type, and the rows that are not finite."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.kinds: dict[tuple[int, str], list[int]] = {}
        self.not_finite: set[int] = set()
        self.zero: set[int] = set()
        self.count = 0

    def add(self, row: np.ndarray) -> None:
        """The next row, float [1, d]."""
        self.kinds.setdefault((row.shape[1], str(row.dtype)), []).append(self.count)
        if not np.isfinite(row).all():
            self.not_finite.add(self.count)
        if not row.any():
            self.zero.add(self.count)
        self.count += 1

    def require_kind(self, row_numbers: dict[str, int]) -> None:
        """Raise DataError, with counts and ids, unless there are rows, all of one length and type."""
        if not row_numbers:
            raise DataError(
                f"{self.path} holds no features; expected a pickled dict {{image id: row}} with at least one image."
            )
        id_of = {number: image_id for image_id, number in row_numbers.items()}
        if len(self.kinds) > 1:
            found = "; ".join(
                f"{len(numbers)} rows of {length} {dtype} ({_listed([id_of.get(number, '?') for number in numbers])})"
                for (length, dtype), numbers in sorted(self.kinds.items(), key=lambda kind: -len(kind[1]))
            )
            raise DataError(f"{self.path} holds {found}; expected rows of one length and type for all images.")

    def require_finite(self, row_numbers: dict[str, int]) -> None:
        """Raise DataError, with count and ids, unless these rows are finite."""
        if bad := [image_id for image_id, number in row_numbers.items() if number in self.not_finite]:
            raise DataError(
                f"{self.path}: the features of {len(bad)} of {len(row_numbers)} images are NaN or infinite: "
                f"{_listed(bad)}. Half precision may have overflowed; extract them again in float32."
            )

    def require_direction(self, row_numbers: dict[str, int]) -> None:
        """Raise DataError, with count and ids, if all numbers of one of these rows are 0: it resembles nothing."""
        if bad := [image_id for image_id, number in row_numbers.items() if number in self.zero]:
            raise DataError(
                f"{self.path}: the features of {len(bad)} of {len(row_numbers)} images are all 0: {_listed(bad)}. They "
                "were not computed, or were too small for their type; extract them again in float32."
            )


def _listed(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def import_features(path: str | Path, folder: DatasetFolder, split: str, model: ImageModel) -> None:
    """Import a published `*_unicom.npy` as the feature store of one split, in row order.

    The rows of the file are first written to a temporary file, one at a time, so that memory never holds them all.
    Features of images that are not in the split are left out. Raises DataError when images of the split have no
    features in the file, or features that are not finite or all 0, and when the rows differ in shape or dtype.
    """
    images = read_table(folder.annotations, IMAGES, ["image_id", "split"])
    wanted = images["image_id"].take(pa.array(split_rows(images, split))).to_pylist()
    output = folder.features("image", model.folder, split)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent) as spool:
        checks = _RowChecks(path)

        def write(row: np.ndarray) -> None:
            checks.add(row)
            spool.write(np.ascontiguousarray(row).data)

        row_numbers = read_feature_dict(path, write)
        spool.flush()
        checks.require_kind(row_numbers)
        if missing := [image_id for image_id in wanted if image_id not in row_numbers]:
            raise DataError(
                f"{path} has no features for {len(missing)} of the {len(wanted)} images of {split}, for instance "
                f"{', '.join(missing[:5])}; the ids in the file are {_listed(list(row_numbers))}. Give the file of "
                "this split, with the ids of images.parquet."
            )
        used = {image_id: row_numbers[image_id] for image_id in wanted}
        checks.require_finite(used)
        checks.require_direction(used)
        ((dimension, dtype),) = checks.kinds
        spooled = np.memmap(spool, dtype=dtype, mode="r").reshape(-1, dimension)
        rows = np.array([row_numbers[image_id] for image_id in wanted])
        step = max(1, (32 << 20) // (4 * dimension))
        parts = (spooled[rows[start : start + step]] for start in range(0, len(rows), step))
        meta = {
            "model": model.identity,
            "weights_sha256": UNKNOWN,
            "imported_from": {"file": Path(path).name, "sha256": sha256_of_file(path)},
            "transform": "as published",
            "versions": {"cusa": __version__, "numpy": np.__version__},
        }
        write_features(output, len(rows), dimension, model.dtype, parts, meta)


def export_features(folder: DatasetFolder, split: str, model: ImageModel, path: str | Path) -> None:
    """Write a feature store in the format that the published code reads: a pickled dict {image id: float32 [1, d]}."""
    images = read_table(folder.annotations, IMAGES, ["image_id", "split"])
    ids = images["image_id"].take(pa.array(split_rows(images, split))).to_pylist()
    store = FeatureStore(folder.features("image", model.folder, split), len(ids), model.identity)
    content = {image_id: store[np.array([row])] for row, image_id in enumerate(ids)}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(content, dtype=object), allow_pickle=True)
