"""A restricted unpickler for published features: it can build only dicts of float arrays."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cusa.common.files import DAMAGED
from cusa.errors import DataError, reason_of

NUMPY = b"\x93NUMPY"
LARGEST_KEPT = 4096  # bytes; larger objects are not kept in the memo


class _PickledArray:
    """Replaces numpy's array during unpickling: gets the array's state and passes the row of features to the sink."""

    def __init__(self, sink: _Sink) -> None:
        self.sink = sink
        self.number = -1
        self.members: list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        if isinstance(content, list) and shape != ():
            raise pickle.UnpicklingError(f"an array of objects of shape {shape}; expected floats of shape (1, d)")
        if isinstance(content, list):  # the outer array, whose only object is the dict
            self.members = content
            return
        is_row = len(shape) in (1, 2) and shape[-1] > 0 and shape[:-1] in ((), (1,))
        if not isinstance(dtype, np.dtype) or dtype.kind != "f" or not is_row:
            raise pickle.UnpicklingError(f"an array of {dtype} and shape {shape}; expected floats of shape (1, d)")
        if isinstance(content, str):  # old pickle protocols write bytes as text
            content = content.encode("latin1")
        self.number = self.sink(np.frombuffer(content, dtype).reshape(1, -1))


class _Sink:
    """Passes rows to `write` and returns their numbers, counted from 0."""

    def __init__(self, write: Callable[[np.ndarray], object]) -> None:
        self.write, self.count = write, 0

    def __call__(self, row: np.ndarray) -> int:
        self.write(row)
        self.count += 1
        return self.count - 1


class _Memo(dict[int, Any]):
    """The unpickler's memo: objects that a pickle can refer to again. Large ones are rows, which need not be kept."""

    def __setitem__(self, key: int, value: Any) -> None:
        parts = value if isinstance(value, tuple) else (value,)
        too_large = any(isinstance(part, bytes | str) and len(part) > LARGEST_KEPT for part in parts)
        super().__setitem__(key, None if too_large else value)


# The base class is the unpickler in Python, because its memo can be replaced. The one in C keeps every row in memory.
class _FeatureUnpickler(pickle._Unpickler):
    """Builds arrays, dtypes and plain containers, and nothing else."""

    def __init__(self, file: BinaryIO, sink: _Sink) -> None:
        super().__init__(file)
        self.memo = _Memo()
        self.allowed: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): np.dtype,
            ("numpy", "ndarray"): _PickledArray,
            ("_codecs", "encode"): _latin1,
        }
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self.allowed[module, "_reconstruct"] = lambda *_: _PickledArray(sink)
            self.allowed[module, "scalar"] = _scalar

    def find_class(self, module: str, name: str) -> Any:
        """Return the few functions and classes that an array of floats needs; refuse all others."""
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which features do not need and which could do harm"
            ) from None


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}; expected latin1")
    return text.encode("latin1")


def _scalar(dtype: object, content: object) -> np.generic:
    """An integer or a text of numpy, which some people's image ids are."""
    if isinstance(content, str):  # old pickle protocols write bytes as text
        content = content.encode("latin1")
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iuU" or not isinstance(content, bytes):
        raise pickle.UnpicklingError(f"a scalar of {dtype}; expected an integer or a text as image id")
    found: np.generic = np.frombuffer(content, dtype)[0]
    return found


def read_feature_dict(path: str | Path, write: Callable[[np.ndarray], object]) -> dict[str, int]:
    """Read a published file of features: pass each row, float [1, d], to `write`, and return the row number of each id.

    Ids may be text or integers, of Python or numpy; they are returned as text. Raises DataError when the file does not
    exist, is anything but a pickled dict {image id: row}, or has an id twice.
    """
    sink = _Sink(write)
    try:
        with Path(path).open("rb") as file:
            major, _ = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(file)
            if shape != () or not dtype.hasobject:
                raise DataError(f"{path} holds {dtype} of shape {shape}; expected one pickled dict {{image id: row}}.")
            array = _FeatureUnpickler(file, sink).load()
            (content,) = array.members
            pairs = [(str(image_id), row.number) for image_id, row in content.items() if _is_pair(image_id, row)]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except DAMAGED as error:
        if _is_cut_off(Path(path)):
            raise DataError(f"{path} is not a complete file of features: it was cut off; copy it again.") from None
        raise DataError(
            f"{path} is not a published file of features ({reason_of(error)}); nothing in it was executed."
        ) from None
    row_numbers = dict(pairs)
    if len(row_numbers) < len(pairs):
        twice = [image_id for image_id, count in Counter(image_id for image_id, _ in pairs).items() if count > 1]
        raise DataError(
            f"{path} has {len(twice)} ids twice, as a number and as text, for instance {', '.join(twice[:5])}; "
            "keep one row of each."
        )
    return row_numbers


def _is_cut_off(path: Path) -> bool:
    """Whether a file of NumPy that holds a pickle ends without the sign with which every pickle ends."""
    with path.open("rb") as file:
        start = file.read(len(NUMPY))
        file.seek(-min(1, path.stat().st_size), os.SEEK_END)
        return NUMPY.startswith(start) and file.read() != pickle.STOP


def _is_pair(image_id: object, row: object) -> bool:
    is_id = isinstance(image_id, str | int | np.integer) and not isinstance(image_id, bool)
    if not is_id or not isinstance(row, _PickledArray) or row.number < 0:
        raise pickle.UnpicklingError(f"the entry {image_id!r} is not an image id with a row of features")
    return True
