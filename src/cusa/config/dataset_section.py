"""The common base of the sections `dataset` of all input formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cusa.common.registry import python_files
from cusa.common.text import is_text_encoding
from cusa.config.section import Count, Name, Section, Whole, added_key

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# Usual names of the three splits, in lower case. docs/your-data.md shows this table to users.
SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "tr", "trainset", "restval"),
    "val": ("val", "valid", "validation", "validate", "vali", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "te", "testset"),
}
# These names sometimes mean the test split, so they are not allowed beside another name of val.
AMBIGUOUS_SPLIT_NAMES = ("eval", "evaluation")
_SPLIT_OF: Mapping[str, Split] = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_YEAR = re.compile(r"[_\- ]?20[0-9][0-9]$")


def split_named(name: str) -> Split | None:
    """The split that a name in SPLIT_NAMES means, in upper or lower case, also with a year such as val2017."""
    plain = name.strip().casefold()
    return (
        _SPLIT_OF.get(plain)
        or _SPLIT_OF.get(_YEAR.sub("", plain))
        or _SPLIT_OF.get(re.sub(r"[_\- ](set|split)$", "", plain))
    )


Cleaning = Literal["published", "none"]
# Pillow's own limit by default. Images of today's cameras, up to 151 million pixels, stay below it, and one such image
# takes about 1.5 GB while it is converted.
MAX_PIXELS = 178_956_970
SkippableProblem = Literal["missing_image", "unreadable_image", "empty_caption", "malformed_row"]


class DatasetSection(Section):
    """Keys that every input format has.

    A format sets class variables where they apply. `provides` names what it offers besides captioned images:
    `extended_positives`, `sentence_pairs` (see Source) and `variants`, a split of labelled images. `makes_images` says
    that its source writes images into the image folder. `few_images` says that there are never more than some thousand
    images. `cleaning` is how captions are cleaned if the section `captions` does not say it.
    """

    provides: ClassVar[frozenset[str]] = frozenset()
    makes_images: ClassVar[bool] = False
    few_images: ClassVar[bool] = False
    cleaning: ClassVar[Cleaning] = "none"
    format: str
    name: Name = Field(description="Names the folder under results/.")
    check_images: Literal["decode", "header"] = Field(
        default="decode",
        description="`decode` decodes every image once before anything else, which finds truncated files; "
        "`header` reads only the first bytes.",
    )
    max_pixels: Count = added_key(
        MAX_PIXELS,
        "Largest number of pixels of an image; the header of a larger one is read, but it is not decoded. "
        "It also holds for the labelled images of benchmarks.",
    )
    skip: list[SkippableProblem] = Field(
        default=[],
        description="Kinds of bad input to leave out, and count in the summary, instead of stopping.",
    )

    leave_out_of_train: list[Literal["copies", "near_copies"]] = added_key(
        [],
        "Images of train to leave out because val or test has a copy: `copies` are the same file or equal bytes, "
        "`near_copies` the same picture in another size or quality.",
    )

    def absent(self) -> dict[str, str]:
        """What the format provides, but not with these keys, each with a sentence. It is not scored."""
        return {}

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
        """The path of the format's own Python file, if `format` names one."""
        return python_files(self.format)


class ImageFolderDataset(DatasetSection):
    """Keys of the formats whose files name images by path."""

    image_root: str | None = Field(
        default=None,
        description="Folder that relative image paths start from; null means the folder of the file that names them.",
    )
    image_prefix: str | None = added_key(
        None,
        "Start of image paths that is from another machine, for instance C:\\Users\\me\\data or /export/vision; it is "
        "left out, and the rest starts at `image_root`.",
        min_length=1,
    )
    encoding: str | None = added_key(
        None, "Encoding of text files that are neither UTF-8 nor marked as UTF-16 or UTF-32, for instance cp1252."
    )
    expected_images: dict[Split, Whole] | None = Field(
        default=None, description="How many images each split has to have; another count stops. null checks nothing."
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        if name is not None and not is_text_encoding(name):
            raise ValueError(
                f"`{name}` is not an encoding that Python knows; write for instance cp1252, utf-16 or gb18030"
            )
        return name

    @property
    def folders(self) -> dict[str, str]:
        """The folder of images, if it is named."""
        return {} if self.image_root is None else {"image_root": self.image_root}


class SplitFilesDataset(ImageFolderDataset):
    """Keys of the formats with one file per split."""

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
