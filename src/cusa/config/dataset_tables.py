"""The sections `dataset` of the formats whose data are tables of the user's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cusa.config.data_files import TABLE_ENDINGS, as_written, matching_files, numbered
from cusa.config.dataset_section import SPLITS, ImageFolderDataset, Split
from cusa.config.section import Parts, Section, added_key

# Table files that are neither text nor Parquet.
NO_TABLES = (".xls", ".xlsx", ".ods", ".feather", ".arrow", ".pkl", ".pickle", ".h5", ".hdf5", ".mdb", ".db", ".sqlite")
LONGEST_NAME = 255  # bytes, on all common file systems
Column = str | int


class Columns(Section):
    """The columns of a table: names of the heading, or numbers from 0."""

    image: Column = Field(default="image", description="Path of the image.")
    caption: Column | list[Column] = Field(
        default="caption", description="A caption, or a list of captions; or several columns, each with a caption."
    )
    image_id: Column | None = Field(default=None, description="Identity of the image; null takes its path.")
    label: Column | None = Field(default=None, description="Class of the image; null if there is none.")
    split: Column | None = Field(default=None, description="`train`, `val` or `test`, if one `file` holds all of them.")
    language: Column | None = added_key(None, "Language of the captions of a row, such as de; null if it is not given.")

    @property
    def captions(self) -> list[Column]:
        """The columns of captions."""
        return self.caption if isinstance(self.caption, list) else [self.caption]

    def named(self) -> list[tuple[str, Column]]:
        """The key and the column of everything that is read."""
        found = [("image", self.image), *(("caption", column) for column in self.captions)]
        others = [("image_id", self.image_id), ("label", self.label), ("split", self.split)]
        others.append(("language", self.language))
        return found + [(key, column) for key, column in others if column is not None]

    @field_validator("caption")
    @classmethod
    def _some_captions(cls, value: Column | list[Column]) -> Column | list[Column]:
        if value == []:
            raise ValueError("name at least one column of captions")
        return value


class NamedColumns(Columns):
    """The columns of a Parquet file with pictures, by name."""

    image: str = Field(default="image", description="Path of the image, or the picture.")
    caption: str | list[str] = Field(  # type: ignore[assignment]
        default="caption", description="A caption, or a list of captions; or several columns, each with a caption."
    )
    image_id: str | None = Field(default=None, description="Identity of the image; null takes its path.")
    label: str | None = Field(default=None, description="Class of the image; null if there is none.")
    split: str | None = Field(default=None, description="`train`, `val` or `test`, if one `file` holds all of them.")
    language: str | None = added_key(None, "Language of the captions of a row, such as de; null if it is not given.")


class OneWayToSplit(ImageFolderDataset):
    """Keys of the formats whose data are in one place for each split, or in one place, `file`, for all splits.

    A place is a file, a folder or a pattern of files with these `endings`. In `file`, either a column says the split,
    which `split_column` names, or shares are drawn.
    """

    split_key: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]
    annotations: dict[Split, str] | None = Field(
        default=None,
        description="One file a split: train, val and test; `held_out` may draw val or test from train instead.",
    )
    file: str | None = Field(default=None, description="One file, with a column of splits or `held_out`.")
    held_out: dict[Literal["val", "test"], Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        default=None,
        description="Shares of the images that are drawn for val and test, if nothing else gives the split; beside a "
        "column of splits, or where `annotations` names no file for one of them, of the images of train.",
    )
    split_names: dict[str, Split | Literal["skip"]] = added_key(
        {}, "Which split another name in the split column means; `skip` leaves its rows out."
    )
    split_seed: int = Field(default=0, description="Seed of that draw.")
    parts: Parts = Field(
        default=1,
        exclude=True,
        description="Jobs that read the files, each some of them, so that several machines read them side by side. "
        "The result is the same.",
    )

    @property
    def split_column(self) -> Column | None:
        """The column that says the split, if one file holds all of them."""
        raise TypeError(f"{type(self).__name__} has to define split_column")

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if (self.annotations is None) == (self.file is None):
            raise ValueError(f"give either `annotations` (files for each split) or `file` (with {self.split_key})")
        says, draws = self.split_column is not None, self.held_out is not None
        if self.held_out == {}:
            raise ValueError("held_out has to give a share for val or test")
        if self.held_out is not None and sum(self.held_out.values()) >= 1:
            raise ValueError("held_out has to give shares for val and test that leave some for train")
        if self.annotations is not None:
            if says:
                raise ValueError(f"{self.split_key} is for one `file` with all splits; leave it out of `annotations`")
            self._one_source_a_split(self.annotations)
        elif not (says or draws):
            raise ValueError(f"`file` needs either {self.split_key} or `held_out`; `annotations` needs neither")
        elif self.held_out is not None and len(self.held_out) < 2 and not says:
            raise ValueError("held_out has to give shares for val and test that leave some for train")
        return self

    @model_validator(mode="after")
    def _sound_patterns(self) -> Self:
        for place in self.places.values():
            matching_files(place, self.endings)
        return self

    def _one_source_a_split(self, annotations: dict[Split, str]) -> None:
        drawn = self.held_out or {}
        if "train" not in annotations:
            raise ValueError("annotations has to name train, val and test, and it lacks train")
        if twice := [split for split in SPLITS if split in annotations and split in drawn]:
            raise ValueError(
                f"held_out would draw images of train into {twice[0]}, which has a file of its own; leave "
                f"{twice[0]} out of held_out"
            )
        if missing := [split for split in SPLITS if split not in annotations and split not in drawn]:
            shares = ", ".join(f"{split}: 0.1" for split in missing)
            raise ValueError(
                f"annotations has to name train, val and test, and it lacks {' and '.join(missing)}; held_out: "
                f"{{{shares}}} draws it from the images of train"
            )

    @property
    def places(self) -> dict[Split | None, str]:
        """The places in `annotations`, train first, or in `file`, whose key is None."""
        if self.annotations is None:
            return {None: self.file or ""}
        return {split: self.annotations[split] for split in SPLITS if split in self.annotations}

    def files_of(self, split: Split | None) -> Sequence[str]:
        """The files of one split, or of the key `file` if `split` is None, in a fixed order."""
        return matching_files(self.places[split], self.endings)

    @property
    def files(self) -> dict[str, str]:
        """Every file, by the key that names it; if no file matches, the place as it was written."""
        found: dict[str, str] = {}
        for split, place in self.places.items():
            found |= numbered("file" if split is None else f"annotations.{split}", place, self.files_of(split))
        return found


class TableDataset(OneWayToSplit):
    """CSV, TSV, JSON, JSONL or Parquet; files for each split, or files with a column that says the split."""

    split_key: ClassVar[str] = "columns.split"
    endings: ClassVar[tuple[str, ...]] = TABLE_ENDINGS
    format: Literal["table"] = "table"
    columns: Columns = Columns()
    heading: bool | None = added_key(
        None, "false where the first row of a CSV is an image already; true where it only looks like one."
    )
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = added_key(
        None, "The character between the cells of a CSV; null looks for comma, semicolon, tab and pipe."
    )
    quotes: bool | None = added_key(
        None, "Whether quotation marks enclose cells of a CSV (true) or are text (false); null looks at each row."
    )
    image_name: str | None = added_key(
        None, "Name of the file of an image whose column holds a part of it, for instance `{}.jpg` or `{:0>12}.jpg`."
    )

    @property
    def split_column(self) -> Column | None:
        """The column that says the split."""
        return self.columns.split

    def files_of(self, split: Split | None) -> Sequence[str]:
        """The files of one split, or of the key `file` if `split` is None, in a fixed order."""
        return as_written(self.places[split], super().files_of(split))

    @field_validator("separator", mode="before")
    @classmethod
    def _one_character(cls, separator: Any) -> Any:
        if isinstance(separator, str) and len(separator) != 1:
            raise ValueError(
                f"{separator!r} has {len(separator)} characters, expected one, for instance ';'; a tab is \"\\t\" in "
                "double quotation marks"
            )
        return separator

    @field_validator("separator")
    @classmethod
    def _between_cells(cls, separator: str | None) -> str | None:
        if separator is not None and separator in '"\r\n\0':
            raise ValueError(f"{separator!r} cannot stand between cells; write for instance ';', or \"\\t\" for a tab")
        return separator

    @field_validator("image_name")
    @classmethod
    def _one_place_for_the_cell(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        # The braces may contain only a width: a pattern must not access attributes of objects.
        if (cell := re.fullmatch(r"[^{}]*\{(?P<width>:[^{}]*)?\}[^{}]*", pattern)) is None:
            raise ValueError(
                f"`{pattern}` needs one pair of braces for the cell, for instance {{}}.jpg or {{:0>12}}.jpg"
            )
        widths = [number.lstrip("0") for number in re.findall(r"\d+", cell["width"] or "")]
        if any(len(width) > len(str(LONGEST_NAME)) or int(width or 0) > LONGEST_NAME for width in widths):
            raise ValueError(f"`{pattern:.80}` has a width above {LONGEST_NAME}, and no file has so long a name")
        try:
            pattern.format("1")
        except ValueError as error:
            raise ValueError(f"`{pattern}` is not a pattern: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _no_other_files(self) -> Self:
        for path in self.files.values():
            if path.lower().endswith(NO_TABLES):
                raise ValueError(f"{path} is neither text nor Parquet; save the table as CSV or Parquet")
        return self
