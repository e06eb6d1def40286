"""The section `dataset`: one class per input format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from cusa.common.files import expanded
from cusa.common.registry import Registry
from cusa.config.data_files import JSON_ENDINGS, as_written, matching_files, numbered
from cusa.config.dataset_packed import PackedDataset, ParquetDataset, WebDatasetDataset
from cusa.config.dataset_section import (
    SPLITS,
    Cleaning,
    DatasetSection,
    ImageFolderDataset,
    SkippableProblem,
    Split,
    SplitFilesDataset,
    split_named,
)
from cusa.config.dataset_tables import Columns, TableDataset
from cusa.config.section import Count, ProblemsError, Seed, added_key, validate
from cusa.errors import ConfigurationError

# Names that other modules, and formats of other packages, import from here.
__all__ = [
    "FORMATS",
    "SECTIONS",
    "SPLITS",
    "AlbefDataset",
    "CocoDataset",
    "Columns",
    "Dataset",
    "DatasetSection",
    "Flickr30kDataset",
    "ImageFolderDataset",
    "KarpathyDataset",
    "OpenMojiDataset",
    "PackedDataset",
    "ParquetDataset",
    "PublishedDataset",
    "SkippableProblem",
    "Split",
    "SplitFilesDataset",
    "TableDataset",
    "WebDatasetDataset",
    "load_dataset",
    "split_named",
]


WITH_SKIN_TONES = "people_body"


class OpenMojiDataset(DatasetSection):
    """The embedded default: OpenMoji pictures with the names and keywords of Unicode CLDR."""

    provides: ClassVar[frozenset[str]] = frozenset({"extended_positives", "variants", "sentence_pairs"})
    makes_images: ClassVar[bool] = True
    few_images: ClassVar[bool] = True
    cleaning: ClassVar[Cleaning] = "published"
    format: Literal["openmoji"] = "openmoji"
    picture_size: Annotated[Count, Field(le=4096)] = Field(
        default=224, description="Side in pixels of the rasterised pictures."
    )
    val_images: Count = Field(default=150, description="Emoji held out for validation, at least.")
    test_images: Count = Field(default=300, description="Emoji held out for testing, at least.")
    split_seed: Seed = Field(default=0, description="Seed of the split by base emoji.")
    groups: list[str] | None = Field(
        default=None,
        description="Unicode groups to use, for instance [food_drink, animals_nature]; null takes all ten. Only "
        "people_body has the skin tones that benchmarks.image_retrieval compares.",
    )
    labels: Literal["emoji", "group"] = added_key(
        "emoji",
        "What the label of an image says: which emoji it is, or its group, to be classified. The skin-tone variants "
        "have their emoji in any case.",
    )

    def absent(self) -> dict[str, str]:
        """Skin-tone variants, if the group that has skin tones is not used."""
        if self.groups is None or WITH_SKIN_TONES in self.groups:
            return {}
        return {"variants": f"only the emoji of {WITH_SKIN_TONES} have skin tones, and dataset.groups leaves them out."}


class PublishedDataset(SplitFilesDataset):
    """JSON lists of {"image_path", "caption", "image_id"}, as the published code reads them."""

    format: Literal["published"] = "published"
    annotations: dict[Split, str] | str = Field(  # type: ignore[assignment]
        description="One file a split, or a folder with train.json or new_train.json, and so on."
    )

    @property
    def files(self) -> dict[str, str]:
        """The annotation files; in a folder, new_{split}.json if {split}.json is not there."""
        if not isinstance(self.annotations, str):
            return {f"annotations.{split}": path for split, path in self.annotations.items()}
        folder, found = expanded(self.annotations), {}
        for split in SPLITS:
            plain, new = folder / f"{split}.json", folder / f"new_{split}.json"
            found[f"annotations.{split}"] = str(new if new.is_file() and not plain.is_file() else plain)
        return found


class AlbefDataset(SplitFilesDataset):
    """ALBEF's own files: JSON lists of {"image", "caption"}, the caption a text or a list of texts."""

    format: Literal["albef"] = "albef"
    annotations: dict[Split, str] = Field(
        description="For each split a file, a folder or a pattern of files, as ALBEF's pre-training reads several."
    )

    @model_validator(mode="after")
    def _sound_patterns(self) -> Self:
        for split in SPLITS:
            self.files_of(split)
        return self

    def files_of(self, split: Split) -> Sequence[str]:
        """The files of one split, in a fixed order."""
        place = self.annotations[split]
        return as_written(place, matching_files(place, JSON_ENDINGS))

    @property
    def files(self) -> dict[str, str]:
        """Every file, by the key that names it; if no file matches, the place as it was written."""
        found: dict[str, str] = {}
        for split in SPLITS:
            found |= numbered(f"annotations.{split}", self.annotations[split], self.files_of(split))
        return found


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


SECTIONS: dict[str, type[DatasetSection]] = {
    "openmoji": OpenMojiDataset,
    "published": PublishedDataset,
    "albef": AlbefDataset,
    "karpathy": KarpathyDataset,
    "coco": CocoDataset,
    "flickr30k": Flickr30kDataset,
    "table": TableDataset,
    "parquet": ParquetDataset,
    "webdataset": WebDatasetDataset,
}


FORMATS = Registry(
    kind="input format",
    group="cusa.sources",
    modules={name: f"cusa.annotations.sources.{name}" for name in SECTIONS},
    needs=("SETTINGS", "open_source"),
)


def load_dataset(mapping: Mapping[str, Any]) -> DatasetSection:
    """Validate the section `dataset`: its `format` says which class it is of.

    Raises ConfigurationError with one line per problem, each naming its key.
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
    try:
        return validate(section, mapping, at="dataset")
    except ConfigurationError as error:
        raise ConfigurationError("\n".join([str(error), *_keys_of_other_formats(section, mapping)])) from None


def _keys_of_other_formats(section: type[DatasetSection], mapping: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each key that the format does not have, but others do: perhaps the format is another one."""
    for key in (key for key in mapping if key not in section.model_fields):
        if others := [name for name, other in SECTIONS.items() if key in other.model_fields]:
            yield (
                f"Configuration key `dataset.format` is {mapping['format']!r}, here or in config/config.yaml, and "
                f"`{key}` is a key of {', '.join(map(repr, others))}; set the format of your data."
            )


def _of_its_format(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    try:
        return load_dataset(value)
    except ConfigurationError as error:
        raise ProblemsError(str(error).splitlines()) from None


Dataset = Annotated[SerializeAsAny[DatasetSection], BeforeValidator(_of_its_format)]
