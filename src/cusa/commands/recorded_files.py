"""The findings of `cusa verify` about galleries, indexes, exports, and stored pixels and tokens.

Each has a description file with the SHA-256 of its other files; earlier releases did not write these digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cusa.annotations.tables import CAPTIONS
from cusa.common.files import made_again, read_array, read_mapping, sha256_of_file
from cusa.errors import DataError
from cusa.gallery.store import Gallery
from cusa.gallery.store import made_again as gallery_again
from cusa.index.folder import SearchIndex
from cusa.index.galleries import require_sound
from cusa.index.meta import built_again
from cusa.layout import META, DatasetFolder
from cusa.model.exported import Exported, exported_again
from cusa.shards.reading import STATISTICS

NOT_RECORDED = "no sha256 is recorded, so only their form was looked at"


def check_gallery(folder: Path) -> str:
    """The sizes of a gallery, its digests, and that all embeddings are finite and normalised."""
    gallery = Gallery.open(folder)
    rows = len(gallery.items)
    for name, digest in gallery.meta.files_sha256.items():
        _require_digest(folder / name, digest, gallery_again(folder / name))
    if rows:
        require_sound(gallery)
    return f"{rows:,} embeddings, all normalised; {_said(gallery.meta.files_sha256)}"


def check_index(folder: Path) -> str:
    """The sizes of an index, its digests, and that its table of copies names rows that are there."""
    index = SearchIndex.open(folder)
    advice = built_again(folder)
    for name, digest in index.meta.files_sha256.items():
        _require_digest(index.meta.file(folder, name), digest, advice)
    for column in ("row", "group"):
        if any(not 0 <= row < index.rows for row in index.duplicates[column].to_pylist()):
            raise DataError(f"{folder}/duplicates.parquet names rows that the index does not have; {advice}")
    return f"{index.meta.kind} with {index.rows:,} rows; {_said(index.meta.files_sha256)}"


def check_export(folder: Path) -> str:
    """The digests of an exported model."""
    about = Exported.read(folder)
    for name, digest in about.files_sha256.items():
        _require_digest(folder / name, digest, exported_again(folder))
    return f"{about.format}; {_said(about.files_sha256)}"


def check_stored(folder: Path) -> str:
    """The digests of stored pixels or tokens, and that their arrays can be read."""
    meta = read_mapping(folder / META, made_again(folder))
    arrays = {path.name: read_array(path, made_again(folder)) for path in sorted(folder.glob("*.npy"))}
    recorded = meta.get("files_sha256", {})
    for name, digest in recorded.items():
        _require_digest(folder / name, digest, made_again(folder))
    if not arrays:
        raise DataError(f"{folder} has no arrays; {made_again(folder)}")
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    return f"{shapes}; {_said(recorded)}"


def outdated(folder: Path, data: DatasetFolder) -> str | None:
    """Why stored pixels or tokens are not used; None if they are of the shards or captions that are there."""
    try:
        meta = read_mapping(folder / META)
    except DataError:
        return None  # `check_stored` has reported it
    split = folder.name
    sources = {"shards_sha256": data.shards(split) / STATISTICS, "captions_sha256": data.annotations / CAPTIONS}
    for key, source in sources.items():
        if key in meta and source.is_file() and sha256_of_file(source) != meta[key]:
            return f"it was made of other data than {source} describes now, so it is not used; {made_again(folder)}"
    return None


def _require_digest(path: Path, expected: str, advice: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing; {advice}")
    if (found := sha256_of_file(path)) != expected:
        raise DataError(
            f"{path} has other bytes than were written: its sha256 is {found[:12]}..., and {expected[:12]}... was "
            f"recorded; {advice}"
        )


def _said(recorded: Mapping[str, str]) -> str:
    if not recorded:
        return NOT_RECORDED
    return (
        "the sha256 is that written" if len(recorded) == 1 else f"the sha256 of {len(recorded)} files is that written"
    )
