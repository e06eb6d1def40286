"""The key `index` of a meta.json: the index, how it was chosen, and its files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cusa.common.files import read_mapping, write_json
from cusa.common.pydantic_errors import first_problem
from cusa.errors import DataError
from cusa.runs.record import made_of_run_again

SCHEMA = 1
META = "meta.json"
INDEX_FILE = "index.faiss"
DUPLICATES_FILE = "duplicates.parquet"
REMOVED_FILE = "removed.parquet"
VERSIONS = "index-versions"  # folder of the files of each version of an index
ADDED = "added"  # folder of the galleries that were added
Kind = Literal["flat", "hnsw", "ivf_sq", "ivf_pq"]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf_sq", "ivf_pq")


class _Part(BaseModel):
    """Values of meta.json that this project writes. Keys of later versions are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class SearchSettings(_Part):
    """How an index is searched. Keys that its kind does not have are None."""

    nprobe: int | None = None  # inverted lists that are visited
    ef_search: int | None = None  # candidates that a graph keeps
    rerank: int | None = None  # candidates for each result whose exact cosines are computed


class Trial(_Part):
    """One setting that was measured: its recall@10 for each sample, milliseconds of a query (median), and bytes."""

    kind: Kind
    factory: str
    search: SearchSettings
    recall: dict[str, float]
    milliseconds: float
    bytes: int
    chosen: bool = False


class GalleryPart(_Part):
    """A gallery whose rows the index holds: its folder, relative to that of the index, and its rows."""

    folder: str
    rows: int


class IndexMeta(_Part):
    """Everything about an index besides its files."""

    schema_version: int = SCHEMA
    kind: Kind
    factory: str
    search: SearchSettings
    rows: int  # that can be found
    removed: int = 0  # rows of the galleries that are never found
    built_rows: int = 0  # rows when the index was last built as a whole
    dimension: int
    model: str  # absolute folder that answers queries
    model_from_index: str | None = None  # the same from the folder of the index, for results that are moved
    model_sha256: str
    modality: Literal["image", "text"]
    head: str
    galleries: list[GalleryPart]
    target_recall: float
    measured_recall: float
    sample: dict[str, int]
    tried: list[Trial] = []
    options: dict[str, Any] = {}  # the options that it was built with: IndexOptions.stored
    bytes: int
    files_sha256: dict[str, str] = {}  # of the files of this version
    seed: int
    made: str  # ISO 8601, UTC
    fingerprint: str
    versions: dict[str, str] = {}

    def file(self, folder: Path, name: str) -> Path:
        """The path of one of the files of this version of the index."""
        return folder / VERSIONS / self.fingerprint / name


def built_again(folder: Path) -> str:
    """The advice for an index whose files are damaged."""
    return made_of_run_again(folder, f"run `cusa index {shlex.quote(str(folder))}` again.")


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of a folder's meta.json. Raises DataError if there is none, or it is not a mapping."""
    path = folder / META
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; expected the folder that `cusa embed` or `cusa index` wrote.")
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a folder that `cusa embed` or `cusa index` wrote.")
    return read_mapping(
        path, made_of_run_again(folder, f"delete {folder}, and run `cusa embed` and `cusa index` again.")
    )


def index_of(folder: Path, content: dict[str, Any]) -> IndexMeta:
    """The key `index` of what `read_meta` returned. Raises DataError if there is no index yet, or it is damaged."""
    if content.get("index") is None:
        raise DataError(f"{folder} has embeddings but no index yet; run `cusa index {shlex.quote(str(folder))}` first.")
    try:
        return IndexMeta.model_validate(content["index"])
    except ValidationError as error:
        key, message = first_problem(error)
        at = f"index.{key}" if key else "index"
        raise DataError(
            f"{folder / META}: the key {at} is not as expected ({message}); {built_again(folder)}"
        ) from None


def write_index(folder: Path, index: IndexMeta) -> None:
    """Write the key `index` into meta.json. In a gallery's own folder, its other keys stay."""
    gallery = index.galleries[0].folder
    content = read_meta(folder) if gallery == "." else {"schema": SCHEMA, "gallery": gallery}
    content["index"] = index.model_dump(mode="json", exclude_none=True)
    write_json(folder / META, content)
