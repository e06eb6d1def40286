"""The section `benchmarks`: one class a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from cusa.common.registry import is_file
from cusa.config.dataset import SPLITS
from cusa.config.paths import exists
from cusa.config.section import Name, Section


class BenchmarkSection(Section):
    """Keys of one benchmark."""

    @property
    def places(self) -> dict[str, str]:
        """Where the benchmark's own data are, by the names that metrics and folders have: those that are named."""
        return {}

    @property
    def brings_data(self) -> bool:
        """Whether the benchmark can do without data of the data set itself."""
        return bool(self.places)

    def left_out(self) -> dict[str, str]:
        """Data that are named but are not there, each with a sentence; the rest is evaluated."""
        missing = {name: path for name, path in self.places.items() if not exists(path)}
        return {
            name: f"{path} does not exist (relative paths start at {Path.cwd()})." for name, path in missing.items()
        }

    def available(self) -> dict[str, str]:
        """Data that are named and there."""
        return {name: path for name, path in self.places.items() if exists(path)}


class ImageTextRetrieval(BenchmarkSection):
    """Image-to-text and text-to-image recall on the held-out pairs."""

    folds: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Also the mean over this many consecutive folds of the test images: 5 makes COCO 1K of COCO 5K.",
    )
    published: Literal["coco_5k", "flickr30k_1k"] | None = Field(
        default=None, description="Which published figures this test split is to be shown beside."
    )


class ExtendedPositives(BenchmarkSection):
    """Retrieval with every right answer counted: of data that list them, or ECCV Caption's for Karpathy's COCO test."""

    ground_truth: Literal["dataset", "coco"] = Field(
        default="dataset",
        description="`dataset`: what the data set lists; `coco`: the package eccv_caption's, for Karpathy's COCO test.",
    )
    pmrp_files: str | None = Field(
        default=None,
        description="Folder with pm_image_to_caption.json and pm_caption_to_image.json, for PMRP on COCO.",
    )

    @property
    def places(self) -> dict[str, str]:
        """The files of PMRP."""
        return {} if self.pmrp_files is None else {"pmrp": self.pmrp_files}

    @property
    def brings_data(self) -> bool:
        """The package's ground truth does; PMRP's files alone do not."""
        return self.ground_truth == "coco"


class ImageRetrieval(BenchmarkSection):
    """Image-to-image retrieval of the same class, over every data set that is named."""

    cub: str | None = Field(default=None, description="CUB_200_2011/, as the archive unpacks.")
    cars: str | None = Field(default=None, description="Folder with cars_annos.mat and car_ims/ of Cars-196.")
    sop: str | None = Field(default=None, description="Stanford_Online_Products/, as the archive unpacks.")
    inshop: str | None = Field(default=None, description="Folder of In-Shop with list_eval_partition.txt and img/.")
    inaturalist: str | None = Field(
        default=None, description="Folder with train_val2018/ and Inat_dataset_splits/Inaturalist_test_set1.txt."
    )
    labelled_images: dict[Name, str] = Field(
        default={}, description="Your own: name to a folder with a folder a class, or to a CSV of image and label."
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if both := sorted(set(self.labelled_images) & set(IMAGE_ARCHIVES)):
            raise ValueError(f"labelled_images: {both} are names of known data sets; take other names")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every data set that is named."""
        known = {name: getattr(self, name) for name in IMAGE_ARCHIVES}
        return {name: path for name, path in known.items() if path is not None} | self.labelled_images


class SentenceSimilarity(BenchmarkSection):
    """Correlation of text-text similarity with gold scores, over everything that is named."""

    senteval: str | None = Field(
        default=None, description="Folder with SentEval's STS/, SICK/ (its data/downstream): STS12-16, STS-B, SICK-R."
    )
    sentence_pairs: dict[Name, str] = Field(
        default={}, description="Your own: name to a TSV file with the columns first, second and score."
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if "senteval" in self.sentence_pairs:
            raise ValueError("sentence_pairs: senteval is the name of the seven known tasks; take another name")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every collection that is named."""
        return ({} if self.senteval is None else {"senteval": self.senteval}) | self.sentence_pairs


IMAGE_ARCHIVES = ("cub", "cars", "sop", "inshop", "inaturalist")


OWN_BENCHMARKS = ("itr", "eccv_caption", "image_retrieval", "sts")


class AddedBenchmark(NamedTuple):
    """A benchmark of `benchmarks.more`.

    `module` is the path of its Python file, or else its name, under which a package registers it; `settings` are its
    own keys.
    """

    module: str
    settings: dict[str, Any]


class Benchmarks(Section):
    """Which benchmarks run; null is off."""

    itr: ImageTextRetrieval | None = None
    eccv_caption: ExtendedPositives | None = None
    image_retrieval: ImageRetrieval | None = None
    sts: SentenceSimilarity | None = None
    more: dict[Name, dict[str, Any] | None] = Field(
        default={},
        description="Benchmarks of installed packages and of Python files, by name. Each has its own settings, and "
        "`file`, where it is a Python file.",
    )

    @property
    def sections(self) -> dict[str, BenchmarkSection | None]:
        """The known benchmarks' sections, by name."""
        return {name: getattr(self, name) for name in OWN_BENCHMARKS}

    @property
    def added(self) -> dict[str, AddedBenchmark]:
        """The benchmarks of `more` that are not null, by name."""
        return {
            name: AddedBenchmark(
                mapping.get("file") or name, {key: value for key, value in mapping.items() if key != "file"}
            )
            for name, mapping in self.more.items()
            if mapping is not None
        }

    @model_validator(mode="after")
    def _added_are_others(self) -> Self:
        if own := [name for name in self.more if name in OWN_BENCHMARKS]:
            raise ValueError(f"more: {own} are benchmarks of cusa; set benchmarks.{own[0]}, or take another name")
        for name, mapping in self.more.items():
            file = (mapping or {}).get("file")
            if file is not None and not (isinstance(file, str) and is_file(file)):
                raise ValueError(f"more.{name}.file is {file!r}, expected the path of a Python file, which ends in .py")
        return self

    @model_validator(mode="after")
    def _distinct_data(self) -> Self:
        sections = [section for section in self.sections.values() if section is not None]
        names = [name for section in sections for name in section.places]
        taken = {*SPLITS, "variants", "extended_positives", "sentence_pairs"} & set(names)
        if both := sorted(taken | {name for name in names if names.count(name) > 1}):
            raise ValueError(f"{both} name two things among splits, labelled_images and sentence_pairs; rename them")
        return self


WITHOUT_DATASET = {
    "eccv_caption": "set ground_truth: coco for Karpathy's COCO test",
    "image_retrieval": "name labelled images (config/README.md)",
    "sts": "name sentence pairs (config/README.md)",
}


# What a benchmark takes from the data set itself, where nothing else is named for it.
NEEDED_OF_DATASET = {"eccv_caption": "extended_positives", "image_retrieval": "variants", "sts": "sentence_pairs"}
