"""The sections `dataset` of the formats whose data are tables of the user's."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cusa.config.dataset_section import SPLITS, ImageFolderDataset, Split
from cusa.config.section import Section

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


class Columns(Section):
    """Which column of a table holds what."""

    image: str = Field(default="image", description="Path of the image.")
    caption: str = Field(default="caption", description="A caption, or a list of captions.")
    image_id: str | None = Field(default=None, description="Identity of the image; null takes its path.")
    label: str | None = Field(default=None, description="Class of the image; null where there is none.")
    split: str | None = Field(default=None, description="`train`, `val` or `test`, where one `file` holds all of them.")


class OneWayToSplit(ImageFolderDataset):
    """Keys of the formats whose data are in one file a split, or in one `file` with all splits.

    In one file, either a column says the split, which `split_column` names, or shares are drawn.
    """

    split_key: ClassVar[str]
    annotations: dict[Split, str] | None = Field(default=None, description="One file a split: train, val and test.")
    file: str | None = Field(default=None, description="One file, with a column of splits or `held_out`.")
    held_out: dict[Literal["val", "test"], Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        default=None, description="Shares of the images that are drawn for val and test, where nothing says the split."
    )
    split_seed: int = Field(default=0, description="Seed of that draw.")

    @property
    def split_column(self) -> str | None:
        """The column that says the split, where one file holds all of them."""
        raise TypeError(f"{type(self).__name__} has to define split_column")

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if (self.annotations is None) == (self.file is None):
            raise ValueError(f"give either `annotations` (one file a split) or `file` (one file with {self.split_key})")
        if self.annotations is not None and len(self.annotations) < len(SPLITS):
            raise ValueError("annotations has to name train, val and test")
        ways = int(self.split_column is not None) + int(self.held_out is not None)
        if ways != int(self.file is not None):
            raise ValueError(f"`file` needs either {self.split_key} or `held_out`, and one file a split needs neither")
        if self.held_out is not None and (len(self.held_out) < 2 or sum(self.held_out.values()) >= 1):
            raise ValueError("held_out has to give shares for val and test that leave some for train")
        return self

    @property
    def places(self) -> dict[Split | None, str]:
        """What `annotations` or `file` names, by split; None is the key of `file`."""
        if self.annotations is None:
            return {None: self.file or ""}
        return dict(self.annotations.items())

    @property
    def files(self) -> dict[str, str]:
        """The files."""
        return {_key_of(split): place for split, place in self.places.items()}


def _key_of(split: Split | None) -> str:
    return "file" if split is None else f"annotations.{split}"


class TableDataset(OneWayToSplit):
    """CSV, TSV, JSONL or Parquet; one file a split, or one file with a column that says the split."""

    split_key: ClassVar[str] = "columns.split"
    format: Literal["table"] = "table"
    columns: Columns = Columns()

    @property
    def split_column(self) -> str | None:
        """The column that says the split."""
        return self.columns.split

    @model_validator(mode="after")
    def _known_endings(self) -> Self:
        if unknown := [path for path in self.files.values() if not path.lower().endswith(TABLE_ENDINGS)]:
            raise ValueError(f"{unknown[0]} does not end in one of {', '.join(TABLE_ENDINGS)}")
        return self
