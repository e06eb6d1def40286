"""Atomic writing of files and folders, reading of JSON, arrays and tensors, checks of the disk, and digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shlex
import shutil
import struct
import tempfile
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.common.tensor_files import plain_classes, why_no_tensors
from cusa.errors import DataError, reason_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

DEVICES = ("/dev", "/proc")  # folders with the names of open files and devices, which cannot be replaced
MEMORY = "/dev/shm"  # ordinary files, in memory
SMALL = 10_000_000  # bytes
ELSEWHERE = "choose another place: --directory of the workflow, or --output of other commands"
OTHERS = 0o077  # what a file's group and all others may do with it
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})
# The exceptions that unpickling damaged or untrusted bytes may raise.
DAMAGED = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    ArithmeticError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The bytes are flushed to disk before the rename, so a power cut leaves either the old file or the new one. A path
    that is not an ordinary file, such as /dev/null, /dev/fd/1 or a pipe, is not replaced: the bytes are appended to it.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file to write.")
    if path.exists() and not is_ordinary_file(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "whole"
            with (Path(folder) / "whole").open("rb") as whole, path.open("ab") as stream:
                shutil.copyfileobj(whole, stream)
        return
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        give_usual_permissions(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def give_usual_permissions(path: Path) -> None:
    """Give a file the permissions that new files get here, if a library lets only its owner read it (safetensors)."""
    if path.stat().st_mode & OTHERS:
        return
    probe = _beside(path)
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    path.chmod(mode)


def is_ordinary_file(path: Path) -> bool:
    """Whether a path is a file that can be replaced: not a device, a pipe, or the name of an open file such as
    /dev/fd/1.

    The open file itself may be an ordinary file, as with `> x`, but its name under /dev or /proc is not.
    """
    if not path.is_file():
        return False
    places = [path.absolute()]
    while places[-1].is_symlink() and not _is_below(places[-1], DEVICES):
        places.append(places[-1].parent / places[-1].readlink())
    return not any(
        _is_below(place, DEVICES) and not _is_below(place, [MEMORY]) for place in (places[-1], path.resolve())
    )


def _is_below(path: Path, folders: Iterable[str]) -> bool:
    """Whether a path lies in one of the folders, as it is written or after the links of its folder are resolved."""
    places = (path, path.parent.resolve() / path.name)
    return any(place.is_relative_to(folder) for place in places for folder in folders)


def _beside(path: Path) -> Path:
    """A name for a temporary file or folder beside a path. Makes the path's folder if necessary."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{path} cannot be written: {path.parent} is not a folder; name another place.") from None
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when the block ends without an error.

    An existing folder at `path` is replaced only at that moment.
    """
    path = Path(path)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: str | Path, path: str | Path) -> None:
    """Give a file a second name, or copy it if the file system has no hard links."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` atomically as indented UTF-8 JSON. Raises ValueError for NaN and infinities."""
    with atomic_file(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def made_again(path: str | Path) -> str:
    """The advice for a damaged file of the workflow: delete it, and the workflow makes it again."""
    return f"delete {path}, and the same command makes it again."


def read_json(path: str | Path, advice: str = "make it again.") -> Any:
    """Read a UTF-8 JSON file that this project wrote. Raises DataError, with `advice`, if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({reason_of(error)}); it is damaged, so {advice}") from None


def read_mapping(path: str | Path, advice: str = "make it again.") -> dict[str, Any]:
    """Read a JSON file that this project wrote and that holds a mapping.

    Raises DataError, with `advice`, if it is gone or damaged.
    """
    if not Path(path).is_file():
        raise DataError(f"{path} is missing; {advice}")
    content = read_json(path, advice)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no mapping, so it is damaged; {advice}")
    return content


def refuse_unreadable(path: str | Path, error: Exception) -> None:
    """Raise DataError if `error` is not about the content of a file, because the file could not be opened.

    Such a file is not damaged, and must not be deleted. Libraries of C do not always tell the number of the error.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in TOO_MANY_OPEN:
        raise DataError(
            f"{path} cannot be opened ({os.strerror(number or 0)}); raise the limit, see ulimit -n."
        ) from None
    if number in FORBIDDEN or (os.path.exists(path) and not os.access(path, os.R_OK)):  # noqa: PTH110 (never raises)
        raise DataError(f"{path} cannot be read (permission denied); give yourself the right to read it.") from None


@contextmanager
def parquet_damage(path: str | Path, advice: str | None = None) -> Iterator[None]:
    """Raise DataError, with `advice`, if the block reads a Parquet file that is damaged or is not there."""
    import pyarrow as pa

    end = "." if advice is None else f"; {advice}"
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist{end}") from None
    except (pa.ArrowException, OSError) as error:
        refuse_unreadable(path, error)
        raise DataError(f"{path} is not a complete Parquet file ({reason_of(error)}){end}") from None


def read_parquet(path: str | Path, advice: str | None = None) -> pa.Table:
    """The table of one Parquet file. Raises DataError, with `advice`, if it is damaged or is not there.

    pyarrow.parquet.read_table would import pandas, which takes half a second, and would take a folder above the file
    that is named `key=value` for a column.
    """
    import pyarrow.parquet as pq

    with parquet_damage(path, advice), pq.ParquetFile(path) as file:
        return file.read()


@contextmanager
def array_damage(path: str | Path, advice: str) -> Iterator[None]:
    """Raise DataError, with what to do about it, if the block reads a file of arrays that is damaged or not there.

    numpy and zipfile raise errors of many types for such files, so the block must only read.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {advice}") from None
    except (*DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        refuse_unreadable(path, error)
        raise DataError(
            f"{path} is not a complete {Path(path).suffix.removeprefix('.')} file ({reason_of(error)}); {advice}"
        ) from None


def read_array(path: str | Path, advice: str) -> np.ndarray:
    """The array of an .npy file, memory-mapped and read-only. Nothing in the file is executed.

    Raises DataError, which ends in `advice`, if the file is not there, is damaged, or holds Python objects.
    """
    import numpy as np

    with array_damage(path, advice):
        return np.lib.format.open_memmap(path, mode="r")


def read_tensors(path: str | Path, device: str = "cpu", mapped: bool = False) -> Any:
    """Read a file that torch.save wrote: tensors, numbers, text, and containers of them, also argparse.Namespace.

    With `mapped` the tensors are read when they are needed, from memory that processes share. No code from the file is
    executed. Raises DataError when the file does not exist, is damaged, or holds any other type of object.
    """
    import torch

    try:
        with torch.serialization.safe_globals(plain_classes()):
            return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except DAMAGED as error:
        refuse_unreadable(path, error)
        raise DataError(
            f"{path} is damaged, or holds something else than tensors and plain values, which is never loaded "
            f"({why_no_tensors(path, error)})."
        ) from None


def require_writable(folder: str | Path, what: str = "the results are") -> None:
    """Raise DataError unless `folder` can be written, or its nearest parent that exists can.

    `what` says what is written there, with its verb.
    """
    folder = Path(folder).absolute()
    existing = _nearest_existing(folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DataError(
            f"{existing} cannot be written (a read-only file system, or another user's folder), but {what} "
            f"written to {folder}; make it writable, or {ELSEWHERE}."
        )


def require_no_dead_link(folder: str | Path) -> None:
    """Raise DataError if `folder`, or a folder above it, is a symbolic link to a place that does not exist."""
    folder = Path(folder)
    for path in (folder, *folder.parents):
        if path.is_symlink() and not path.exists():
            raise DataError(
                f"{path} is a symbolic link to {path.readlink()}, which does not exist, but the results are written to "
                f"{folder}; make that folder (or mount its disk), or remove the link."
            )


def require_space(folder: str | Path, needed: int, what: str) -> None:
    """Raise DataError unless the file system of `folder` has `needed` bytes free; the message names `what`."""
    existing = _nearest_existing(Path(folder).absolute())
    if (free := shutil.disk_usage(existing).free) < needed:
        raise DataError(
            f"{what} needs {gigabytes(needed)}, but {existing} has {gigabytes(free)} free; free some space, or "
            f"{ELSEWHERE}."
        )


def gigabytes(count: float) -> str:
    """A number of bytes in GB, or in MB if that would be next to nothing, as on a small disk."""
    return f"{count / 1e9:,.2f} GB" if count >= SMALL else f"{count / 1e6:.2f} MB"


def _nearest_existing(folder: Path) -> Path:
    return next(candidate for candidate in (folder, *folder.parents) if candidate.exists())


def quoted_path(path: str) -> str:
    """A path as one word of a shell command. Ordinary paths stay as they are; none is taken for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def expand_home(name: str) -> str:
    """Replace a leading `~` of a model's name by the home folder; names on a hub stay as they are."""
    return str(expanded(name)) if name.startswith("~") else name


def expanded(path: str | Path) -> Path:
    """A path with a leading `~` replaced by the home folder.

    `~nobody` of a user who does not exist stays as it is, like the name of any file that is not there.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def sha256_of_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes in lower-case hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
