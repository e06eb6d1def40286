"""The section `dataset`: one class an input format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from cusa.common.registry import Registry, python_files
from cusa.config.section import Count, Name, ProblemsError, Section, validate
from cusa.errors import ConfigurationError

SkippableProblem = Literal["missing_image", "unreadable_image", "empty_caption", "malformed_row"]


class DatasetSection(Section):
    """Keys that every input format has.

    A format sets two class variables where they apply. `provides` names what it offers besides captioned images:
    `extended_positives`, `sentence_pairs` (see Source) and `variants`, a split of labelled images. `makes_images` says
    that its source writes images into the image folder.
    """

    provides: ClassVar[frozenset[str]] = frozenset()
    makes_images: ClassVar[bool] = False
    format: str
    name: Name = Field(description="Names the folder under results/.")
    check_images: Literal["decode", "header"] = Field(
        default="decode",
        description="`decode` decodes every image once before anything else, which finds truncated files; "
        "`header` reads only the first bytes.",
    )
    skip: list[SkippableProblem] = Field(
        default=[],
        description="Kinds of bad input to leave out, and count in the summary, instead of stopping.",
    )

    @property
    def files(self) -> dict[str, str]:
        """Every annotation file that the section names, by its key."""
        return {}

    @property
    def folders(self) -> dict[str, str]:
        """Every folder of images that the section names, by its key."""
        return {}

    @property
    def python_files(self) -> list[str]:
        """The path of the format's own Python file, where `format` names one."""
        return python_files(self.format)


class OpenMojiDataset(DatasetSection):
    """The embedded default: OpenMoji pictures with the names and keywords of Unicode CLDR."""

    provides: ClassVar[frozenset[str]] = frozenset({"extended_positives", "variants", "sentence_pairs"})
    makes_images: ClassVar[bool] = True
    format: Literal["openmoji"] = "openmoji"
    picture_size: Count = Field(default=224, description="Side in pixels of the rasterised pictures.")
    val_images: Count = Field(default=150, description="Emoji held out for validation, at least.")
    test_images: Count = Field(default=300, description="Emoji held out for testing, at least.")
    split_seed: int = Field(default=0, description="Seed of the split by base emoji.")
    groups: list[str] | None = Field(
        default=None,
        description="Unicode groups to use, for instance [food_drink, animals_nature]; null takes all ten.",
    )


Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ImageFolderDataset(DatasetSection):
    """Keys of the formats whose files name images by path."""

    image_root: str | None = Field(
        default=None,
        description="Folder that relative image paths start from; null means the folder of the file that names them.",
    )
    expected_images: dict[Split, Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="How many images each split has to have; another count stops. null checks nothing."
    )

    @property
    def folders(self) -> dict[str, str]:
        """The folder of images, where it is named."""
        return {} if self.image_root is None else {"image_root": self.image_root}


class SplitFilesDataset(ImageFolderDataset):
    """Keys of the formats with one file a split."""

    annotations: dict[Split, str] = Field(description="One file a split: train, val and test.")

    @model_validator(mode="after")
    def _all_three_splits(self) -> Self:
        named = SPLITS if isinstance(self.annotations, str) else self.annotations
        if missing := [split for split in SPLITS if split not in named]:
            raise ValueError(f"annotations lacks {', '.join(missing)}; name one file for each split")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The annotation files."""
        return {f"annotations.{split}": path for split, path in self.annotations.items()}


class PublishedDataset(SplitFilesDataset):
    """JSON lists of {"image_path", "caption", "image_id"}, as the published code reads them."""

    format: Literal["published"] = "published"
    annotations: dict[Split, str] | str = Field(  # type: ignore[assignment]
        description="One file a split, or a folder with train.json or new_train.json, and so on."
    )

    @property
    def files(self) -> dict[str, str]:
        """The annotation files; in a folder, new_{split}.json where {split}.json is not there."""
        if not isinstance(self.annotations, str):
            return {f"annotations.{split}": path for split, path in self.annotations.items()}
        folder, found = Path(self.annotations).expanduser(), {}
        for split in SPLITS:
            plain, new = folder / f"{split}.json", folder / f"new_{split}.json"
            found[f"annotations.{split}"] = str(new if new.is_file() and not plain.is_file() else plain)
        return found


class AlbefDataset(SplitFilesDataset):
    """ALBEF's own files: JSON lists of {"image", "caption"}, the caption a text or a list of texts."""

    format: Literal["albef"] = "albef"


class KarpathyDataset(ImageFolderDataset):
    """Karpathy's dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json: all splits in one file."""

    format: Literal["karpathy"] = "karpathy"
    file: str = Field(description="The JSON file.")
    restval: Literal["train", "val", "test", "skip"] = Field(
        default="train", description="Where COCO's split `restval` goes; the published split trains on it."
    )

    @property
    def files(self) -> dict[str, str]:
        """The annotation file."""
        return {"file": self.file}


class CocoDataset(SplitFilesDataset):
    """COCO's own captions_*.json, one a split."""

    format: Literal["coco"] = "coco"
    image_roots: dict[Split, str] | None = Field(
        default=None, description="A folder of images for each split, for instance train2017/; goes before image_root."
    )

    @property
    def folders(self) -> dict[str, str]:
        """The folders of images."""
        return super().folders | {f"image_roots.{split}": path for split, path in (self.image_roots or {}).items()}


class Flickr30kDataset(ImageFolderDataset):
    """Flickr30K's results_20130124.token, or results.csv of the later release; which image is where is yours to say."""

    format: Literal["flickr30k"] = "flickr30k"
    file: str = Field(description="The token file or the CSV file.")
    splits: dict[Split, str] = Field(description="For each split a text file with one image name a line.")

    @model_validator(mode="after")
    def _all_three_splits(self) -> Self:
        if missing := [split for split in SPLITS if split not in self.splits]:
            raise ValueError(f"splits lacks {', '.join(missing)}; name one list of images for each split")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The captions and the lists of images."""
        return {"file": self.file} | {f"splits.{split}": path for split, path in self.splits.items()}


class Columns(Section):
    """Which column of a table holds what."""

    image: str = Field(default="image", description="Path of the image.")
    caption: str = Field(default="caption", description="A caption, or a list of captions.")
    image_id: str | None = Field(default=None, description="Identity of the image; null takes its path.")
    label: str | None = Field(default=None, description="Class of the image; null where there is none.")
    split: str | None = Field(default=None, description="`train`, `val` or `test`, where one `file` holds all of them.")


class TableDataset(ImageFolderDataset):
    """CSV, TSV, JSONL or Parquet; one file a split, or one file with a column that says the split."""

    format: Literal["table"] = "table"
    annotations: dict[Split, str] | None = Field(default=None, description="One file a split: train, val and test.")
    file: str | None = Field(default=None, description="One file, with `columns.split` or `held_out`.")
    columns: Columns = Columns()
    held_out: dict[Literal["val", "test"], Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        default=None, description="Shares of the images that are drawn for val and test, where nothing says the split."
    )
    split_seed: int = Field(default=0, description="Seed of that draw.")

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if (self.annotations is None) == (self.file is None):
            raise ValueError("give either `annotations` (one file a split) or `file` (one file with columns.split)")
        if self.annotations is not None and len(self.annotations) < len(SPLITS):
            raise ValueError("annotations has to name train, val and test")
        ways = int(self.columns.split is not None) + int(self.held_out is not None)
        if ways != int(self.file is not None):
            raise ValueError("`file` needs either columns.split or `held_out`, and one file a split needs neither")
        if self.held_out is not None and (len(self.held_out) < 2 or sum(self.held_out.values()) >= 1):
            raise ValueError("held_out has to give shares for val and test that leave some for train")
        if unknown := [path for path in self.files.values() if not path.lower().endswith(TABLE_ENDINGS)]:
            raise ValueError(f"{unknown[0]} does not end in one of {', '.join(TABLE_ENDINGS)}")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The tables."""
        if self.annotations is None:
            return {"file": self.file or ""}
        return {f"annotations.{split}": path for split, path in self.annotations.items()}


TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
SECTIONS: dict[str, type[DatasetSection]] = {
    "openmoji": OpenMojiDataset,
    "published": PublishedDataset,
    "albef": AlbefDataset,
    "karpathy": KarpathyDataset,
    "coco": CocoDataset,
    "flickr30k": Flickr30kDataset,
    "table": TableDataset,
}


FORMATS = Registry(
    kind="input format",
    group="cusa.sources",
    modules={name: f"cusa.annotations.sources.{name}" for name in SECTIONS},
    needs=("SETTINGS", "open_source"),
)


def load_dataset(mapping: Mapping[str, Any]) -> DatasetSection:
    """Validate the section `dataset`: its `format` says which class it is of.

    Raises ConfigurationError with one line a problem, each naming its key.
    """
    key, chosen = "dataset.format", mapping.get("format")
    if not isinstance(chosen, str):
        value = "missing" if chosen is None else repr(chosen)
        raise ConfigurationError(
            f"Configuration key `{key}` is {value}; expected one of {', '.join(map(repr, FORMATS.names()))}."
        )
    FORMATS.require(chosen, key)
    # Our own sections are here, so that a configuration is validated without importing the code that reads the data.
    section = SECTIONS[chosen] if chosen in SECTIONS else FORMATS.load(chosen, key).SETTINGS
    if not (isinstance(section, type) and issubclass(section, DatasetSection)):
        raise ConfigurationError(
            f"Configuration key `{key}`: SETTINGS of {chosen} is {section!r}; expected a subclass of "
            "cusa.config.dataset.DatasetSection."
        )
    return validate(section, mapping, at="dataset")


def _of_its_format(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    try:
        return load_dataset(value)
    except ConfigurationError as error:
        raise ProblemsError(str(error).splitlines()) from None


Dataset = Annotated[SerializeAsAny[DatasetSection], BeforeValidator(_of_its_format)]
