"""The section `benchmarks`: one class per benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from cusa.common.registry import is_file
from cusa.config.benchmark_section import BenchmarkSection
from cusa.config.classification import LinearProbe, ZeroShotClassification
from cusa.config.dataset import SPLITS
from cusa.config.section import Count, Name, Section, added_key

# Names that other modules, and benchmarks of other packages, import from here.
__all__ = [
    "NEEDED_OF_DATASET",
    "OWN_BENCHMARKS",
    "WITHOUT_DATASET",
    "AddedBenchmark",
    "BenchmarkSection",
    "Benchmarks",
    "ExtendedPositives",
    "ImageRetrieval",
    "ImageTextRetrieval",
    "LinearProbe",
    "SentenceSimilarity",
    "ZeroShotClassification",
]


class ImageTextRetrieval(BenchmarkSection):
    """Image-to-text and text-to-image recall on the held-out pairs."""

    folds: Annotated[Count, Field(ge=2)] | None = Field(
        default=None,
        description="Also the mean over this many consecutive folds of the test images: 5 makes COCO 1K of COCO 5K.",
    )
    published: Literal["coco_5k", "flickr30k_1k"] | None = Field(
        default=None, description="Which published figures this test split is to be shown beside."
    )
    recall_at: Annotated[list[Count], Field(min_length=1)] = added_key(
        [1, 5, 10], "R@K is the share of queries that have a right answer among the K best; rsum is of 1, 5 and 10."
    )

    @model_validator(mode="after")
    def _has_rsum(self) -> Self:
        if lacking := sorted({1, 5, 10} - set(self.recall_at)):
            raise ValueError(f"recall_at lacks {', '.join(map(str, lacking))}, which rsum is the sum of; add them")
        return self


class ExtendedPositives(BenchmarkSection):
    """Retrieval that counts every right answer: of data that list them, or ECCV Caption's for Karpathy's COCO test."""

    ground_truth: Literal["dataset", "coco"] = Field(
        default="dataset",
        description="`dataset`: those of the data set; `coco`: the package eccv_caption's, for Karpathy's COCO test.",
    )
    pmrp_files: str | None = Field(
        default=None,
        description="Folder with pm_image_to_caption.json and pm_caption_to_image.json, for PMRP on COCO.",
    )
    positives: str | None = added_key(
        None,
        "Table of your own with the columns image, caption and right: which test images are right answers to a "
        "caption, and which are not. It takes the place of ground_truth.",
    )
    recall_at: Annotated[list[Count], Field(min_length=1)] = added_key(
        [1],
        "R@K is the share of queries that have a right answer among the K best. CxC's and COCO's have 1, 5 and 10 too.",
    )

    @model_validator(mode="after")
    def _has_first(self) -> Self:
        if 1 not in self.recall_at:
            raise ValueError("recall_at lacks 1, which ECCV Caption and the published figures are of; add it")
        return self

    @model_validator(mode="after")
    def _one_ground_truth(self) -> Self:
        if self.positives is not None and (self.ground_truth == "coco" or self.pmrp_files is not None):
            raise ValueError("positives takes the place of ground_truth: coco and of pmrp_files; leave these out")
        return self

    @property
    def places(self) -> dict[str, str]:
        """The files of PMRP."""
        return {} if self.pmrp_files is None else {"pmrp": self.pmrp_files}

    @property
    def brings_data(self) -> bool:
        """The package's ground truth and the user's own table do; PMRP's files alone do not."""
        return self.ground_truth == "coco" or self.positives is not None


class ImageRetrieval(BenchmarkSection):
    """Image-to-image retrieval of the same class, on every configured data set."""

    cub: str | None = Field(default=None, description="CUB_200_2011/, as the archive unpacks.")
    cars: str | None = Field(default=None, description="Folder with cars_annos.mat and car_ims/ of Cars-196.")
    sop: str | None = Field(default=None, description="Stanford_Online_Products/, as the archive unpacks.")
    inshop: str | None = Field(default=None, description="Folder of In-Shop with list_eval_partition.txt and img/.")
    inaturalist: str | None = Field(
        default=None, description="Folder with train_val2018/ and Inat_dataset_splits/Inaturalist_test_set1.txt."
    )
    labelled_images: dict[Name, str] = Field(
        default={}, description="Your own: name to a folder with a folder per class, or to a CSV of image and label."
    )

    recall_at: Annotated[list[Count], Field(min_length=1)] = added_key(
        [1, 2, 4, 8], "R@K is the share of queries that have their class among the K nearest images."
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if 1 not in self.recall_at:
            raise ValueError("recall_at lacks 1, which the averages and the published figures are of; add it")
        if both := sorted(set(self.labelled_images) & set(IMAGE_ARCHIVES)):
            raise ValueError(f"labelled_images: {both} are names of known data sets; take other names")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every data set that is named."""
        known = {name: getattr(self, name) for name in IMAGE_ARCHIVES}
        return {name: path for name, path in known.items() if path is not None} | self.labelled_images


class SentenceSimilarity(BenchmarkSection):
    """Correlation of text-text similarity with gold scores, on every configured collection."""

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


OWN_BENCHMARKS = ("itr", "eccv_caption", "image_retrieval", "sts", "zero_shot_classification", "linear_probe")
# Names of data that the data set itself has; `dataset` is what settings call it.
OF_DATASET = (*SPLITS, "variants", "extended_positives", "sentence_pairs", "class_prompts", "judged_pairs", "dataset")


class AddedBenchmark(NamedTuple):
    """A benchmark of `benchmarks.more`.

    `module` is the path of its Python file, or else its name, under which a package registers it; `settings` are its
    own keys.
    """

    module: str
    settings: dict[str, Any]


class Benchmarks(Section):
    """The benchmarks; null switches one off."""

    itr: ImageTextRetrieval | None = None
    eccv_caption: ExtendedPositives | None = None
    image_retrieval: ImageRetrieval | None = None
    sts: SentenceSimilarity | None = None
    zero_shot_classification: ZeroShotClassification | None = None
    linear_probe: LinearProbe | None = None
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
    def files(self) -> dict[str, str]:
        """The tables of right answers and of class names, by their keys; they must exist."""
        extended, zero_shot, found = self.eccv_caption, self.zero_shot_classification, dict[str, str]()
        if extended is not None and extended.positives is not None:
            found["eccv_caption.positives"] = extended.positives
        if zero_shot is not None:
            found |= {
                f"zero_shot_classification.class_names.{name}": file for name, file in zero_shot.name_files.items()
            }
        return found

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
        """Several benchmarks may name the same labelled images; otherwise each name is of one thing."""
        found: dict[str, set[tuple[str, str]]] = {name: {("data set", "")} for name in OF_DATASET}
        for benchmark, section in self.sections.items():
            kind = benchmark if benchmark in ("sts", "eccv_caption") else "labelled images"
            places: Mapping[str, str] = {} if section is None else section.places
            for name, place in places.items():
                found.setdefault(name, set()).add((kind, place))
        if both := sorted(name for name, things in found.items() if len(things) > 1):
            raise ValueError(
                f"{', '.join(both)} name two things among splits, labelled_images and sentence_pairs; rename them"
            )
        return self


WITHOUT_DATASET = {
    "eccv_caption": "set ground_truth: coco for Karpathy's COCO test, or name a table of your own in positives",
    "image_retrieval": "name your own in labelled_images",
    "sts": "name your own in sentence_pairs",
}


# The data that a benchmark takes from the data set itself, if none are named for it.
NEEDED_OF_DATASET = {"eccv_caption": "extended_positives", "image_retrieval": "variants", "sts": "sentence_pairs"}
