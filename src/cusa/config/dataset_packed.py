"""The sections `dataset` of the formats whose files hold the pictures themselves, and the files that a place names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cusa.common.files import expanded
from cusa.config.dataset_section import Split
from cusa.config.dataset_tables import NamedColumns, OneWayToSplit
from cusa.config.section import Parts, Section, added_key

PARQUET_ENDINGS = (".parquet",)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
MOST_FILES = 100_000
PATTERN_SIGNS = "*?["
NUMBER_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})")


class PackedDataset(OneWayToSplit):
    """Keys of the formats whose files hold the pictures. A place is a file, a folder or a pattern of files."""

    makes_images: ClassVar[bool] = True
    endings: ClassVar[tuple[str, ...]]
    parts: Parts = Field(
        default=1,
        exclude=True,
        description="Jobs that read the files, each some of them, so that several machines read them side by side. "
        "What comes out is the same.",
    )

    @model_validator(mode="after")
    def _sound_patterns(self) -> Self:
        for place in self.places.values():
            matching_files(place, self.endings)
        return self

    def files_of(self, split: Split | None) -> list[str]:
        """The files of one split, or of the key `file` if `split` is None, in a fixed order."""
        return matching_files(self.places[split], self.endings)

    @property
    def files(self) -> dict[str, str]:
        """Every file, by the key that names it; if no file matches, the place as it was written."""
        found: dict[str, str] = {}
        for split, place in self.places.items():
            key, paths = "file" if split is None else f"annotations.{split}", self.files_of(split)
            found |= {key if len(paths) == 1 else f"{key}[{number}]": path for number, path in enumerate(paths)}
            if not paths:
                found[key] = place
        return found


class ParquetDataset(PackedDataset):
    """Parquet files with a column of pictures: bytes, or Hugging Face's struct of bytes and path."""

    split_key: ClassVar[str] = "columns.split"
    endings: ClassVar[tuple[str, ...]] = PARQUET_ENDINGS
    format: Literal["parquet"] = "parquet"
    columns: NamedColumns = NamedColumns()

    @property
    def split_column(self) -> str | None:
        """The column that says the split."""
        return self.columns.split


class JsonKeys(Section):
    """The keys of a sample's JSON file for caption, split and the like."""

    caption: str | None = Field(
        default=None, description="A caption, or a list of captions; null takes KEY.txt, else the JSON's `caption`."
    )
    image_id: str | None = Field(default=None, description="Identity of the image; null takes the tar and the key.")
    label: str | None = Field(default=None, description="Class of the image; null if there is none.")
    split: str | None = Field(default=None, description="`train`, `val` or `test`, if one `file` holds all of them.")
    language: str | None = added_key(None, "Language of the captions of a sample, such as de; null if it is not given.")


class WebDatasetDataset(PackedDataset):
    """WebDataset tars as img2dataset writes them: KEY.jpg with KEY.txt, KEY.json, or both."""

    split_key: ClassVar[str] = "keys.split"
    endings: ClassVar[tuple[str, ...]] = TAR_ENDINGS
    format: Literal["webdataset"] = "webdataset"
    keys: JsonKeys = JsonKeys()

    @property
    def split_column(self) -> str | None:
        """The key that says the split."""
        return self.keys.split

    @model_validator(mode="after")
    def _no_image_root(self) -> Self:
        if self.image_root is not None:
            raise ValueError("image_root has no effect, because the pictures are in the tars; leave it out")
        return self


def matching_files(place: str, endings: tuple[str, ...]) -> list[str]:
    """The files that a place names: a file, all files with these endings in a folder, or those that match a pattern.

    A pattern has braces (`{00000..00009}`, `{a,b}`), `*`, `?` or `[...]`. Hidden files are left out. A name from braces
    alone is returned also if there is no such file, so that the missing file can be reported. Raises ValueError for
    braces that do not pair up, and for a pattern that names too many files.
    """
    path = expanded(place)
    if path.is_dir():
        # os.walk passes over folders that cannot be read, or are gone meanwhile.
        below = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        return [str(found) for found in below if _is_data(found, path, endings)]
    if path.exists() or not any(sign in place for sign in "{" + PATTERN_SIGNS):
        return [str(path)]
    found = list(dict.fromkeys(islice(_matches(str(path), endings), MOST_FILES + 1)))
    if len(found) > MOST_FILES:
        raise ValueError(f"{place} names more than {MOST_FILES:,} files; name a folder, or fewer files")
    return found


def _matches(pattern: str, endings: tuple[str, ...]) -> Iterator[str]:
    from braceexpand import braceexpand

    # braceexpand makes all numbers of a range at once.
    for first, last in NUMBER_RANGE.findall(pattern):
        if abs(int(last) - int(first)) >= MOST_FILES:
            raise ValueError(f"{pattern} names more than {MOST_FILES:,} files; name a folder, or fewer files")
    try:
        names = braceexpand(pattern, escape=False)
    except ValueError:
        raise ValueError(f"{pattern} has braces that do not pair up") from None
    for name in names:
        if any(sign in name for sign in PATTERN_SIGNS):
            anchor = Path(name).anchor
            matching = Path(anchor or ".").glob(name[len(anchor) :])
            yield from (str(path) for path in sorted(matching) if _is_data(path, path.parent, endings))
        else:
            yield name


def _is_data(path: Path, folder: Path, endings: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name.lower().endswith(endings) and path.is_file()
