"""The embeddings and items of one or several galleries, as one numbering of rows. Embeddings stay on disk, mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cusa.common.files import parquet_damage, read_array
from cusa.errors import DataError
from cusa.index.meta import META, read_meta

if TYPE_CHECKING:
    import pyarrow as pa

ADVICE = "run `cusa embed` again."
BLOCK_BYTES = 64 << 20  # of embeddings that are copied into memory at once


class GalleryFiles:
    """One gallery: its meta.json, its mapped arrays and the files of its items."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.meta = read_meta(self.folder)
        try:
            parts: list[dict[str, Any]] = self.meta["parts"]
            self.dimension, self.rows = int(self.meta["dimension"]), int(self.meta["rows"])
            self.model, self.model_sha256 = str(self.meta["model"]), str(self.meta["model_sha256"])
            self.modality, self.head = str(self.meta["modality"]), str(self.meta["head"])
            paths = [
                (self.folder / part["embeddings"], self.folder / part["items"], int(part["rows"])) for part in parts
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.folder / META} is not what `cusa embed` writes (at {error}); give the folder of embeddings, or "
                "run `cusa embed` again."
            ) from None
        self.arrays = [self._array(path, rows) for path, _, rows in paths]
        self.item_files = [path for _, path, _ in paths]
        if sum(len(array) for array in self.arrays) != self.rows:
            raise DataError(f"{self.folder / META} says {self.rows:,} rows, but its parts have others; {ADVICE}")

    def _array(self, path: Path, rows: int) -> np.ndarray:
        array = read_array(path, ADVICE)
        if array.shape != (rows, self.dimension) or array.dtype != np.float32:
            raise DataError(
                f"{path} is {array.dtype} {list(array.shape)}, but meta.json says float32 [{rows}, {self.dimension}]; "
                f"{ADVICE}"
            )
        return array

    def items(self) -> pa.Table:
        """The table of items, one row an embedding. Raises DataError where rows are missing."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = []
        for path, array in zip(self.item_files, self.arrays, strict=True):
            with parquet_damage(path):
                table = pq.read_table(path)
            if table.num_rows != len(array):
                raise DataError(
                    f"{path} has {table.num_rows:,} rows, but there are {len(array):,} embeddings; {ADVICE}"
                )
            tables.append(table)
        return pa.concat_tables(tables, promote_options="permissive")


class Vectors:
    """Mapped embeddings of several files, as if they were one array float32 [rows, dimension]."""

    def __init__(self, arrays: Sequence[np.ndarray], dimension: int) -> None:
        self.arrays, self.dimension = [array for array in arrays if len(array)], dimension
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the rows, int64 [n] -> float32 [n, dimension]."""
        if len(self.arrays) == 1:
            return np.asarray(self.arrays[0][rows])
        result = np.empty((len(rows), self.dimension), dtype=np.float32)
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(part_of).tolist():
            mine = part_of == part
            result[mine] = self.arrays[part][rows[mine] - self.starts[part]]
        return result

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """The number of the first row, and the embeddings, of one block after the other."""
        step = rows or max(1, BLOCK_BYTES // (4 * self.dimension))
        for start, array in zip(self.starts.tolist(), self.arrays, strict=False):
            for at in range(0, len(array), step):
                yield start + at, np.ascontiguousarray(array[at : at + step])
