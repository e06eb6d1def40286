"""The sections `dataset` of the formats whose files hold the pictures themselves."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cusa.config.data_files import PARQUET_ENDINGS, TAR_ENDINGS
from cusa.config.dataset_tables import NamedColumns, OneWayToSplit
from cusa.config.section import Section, added_key


class PackedDataset(OneWayToSplit):
    """Keys of the formats whose files hold the pictures."""

    makes_images: ClassVar[bool] = True


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
    def _no_image_paths(self) -> Self:
        for key in ("image_root", "image_prefix"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} has no effect, because the pictures are in the tars; leave it out")
        return self
