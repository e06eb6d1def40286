"""Reading, importing and exporting image features in the published format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from cusa import __version__
from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.common.files import sha256_of_file, whole_file
from cusa.config.models import ImageModel
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.teachers.store import UNKNOWN, FeatureStore, write_features
from cusa.upstream.unpickling import read_feature_dict


def load_features(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read a published `*_unicom.npy`: the image ids in the file's order, and their features [n, d] in its own dtype.

    The file is a pickled dict {image id: array of shape [1, d]}. The unpickler can build nothing but such a dict. If
    the file asks for any other function or class, DataError is raised and nothing is called.
    """
    rows: list[np.ndarray] = []
    row_numbers = read_feature_dict(path, rows.append)
    if not row_numbers:
        raise DataError(f"{path} holds no features; expected a pickled dict {{image id: row}} with at least one image.")
    return list(row_numbers), np.concatenate([rows[number] for number in row_numbers.values()])


def import_features(path: str | Path, folder: DatasetFolder, split: str, model: ImageModel) -> None:
    """Import a published `*_unicom.npy` as the feature store of one split, in row order.

    The rows of the file are first written to a temporary file, one at a time, so that memory never holds them all.
    Features of images that are not in the split are left out. Raises DataError when images of the split have no
    features in the file, and when the rows differ in shape or dtype.
    """
    images = read_table(folder.annotations, IMAGES, ["image_id", "split"])
    wanted = images["image_id"].take(pa.array(split_rows(images, split))).to_pylist()
    output = folder.features("image", model.folder, split)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent) as spool:
        first: list[np.ndarray] = []

        def write(row: np.ndarray) -> None:
            if not first:
                first.append(row)
            if row.shape != first[0].shape or row.dtype != first[0].dtype:
                raise DataError(
                    f"{path} holds features of {first[0].dtype} {first[0].shape} and of {row.dtype} {row.shape}; "
                    "expected the same shape and dtype for all images."
                )
            spool.write(np.ascontiguousarray(row).data)

        row_numbers = read_feature_dict(path, write)
        spool.flush()
        if missing := [image_id for image_id in wanted if image_id not in row_numbers]:
            raise DataError(
                f"{path} has no features for {len(missing)} of the {len(wanted)} images of {split}, for instance "
                f"{', '.join(missing[:5])}; it belongs to another split or data set. Give the file of this split."
            )
        dimension = first[0].shape[1]
        spooled = np.memmap(spool, dtype=first[0].dtype, mode="r").reshape(-1, dimension)
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
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(content, dtype=object), allow_pickle=True)
